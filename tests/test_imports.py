"""The import contract: which file of `src` may import which (docs/architecture.md)."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "src").rglob("*.py"))


def room(path):
    """A package of `src`; None for a command."""
    first, *rest = path.relative_to(ROOT / "src").parts
    return first if rest else None


def imported(path):
    """The files and packages of the project that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in filter(lambda name: name.startswith("src."), names):
            module = ROOT / name.replace(".", "/")
            yield from (file for file in (module.with_suffix(".py"), module / "__init__.py") if file.is_file())


def allowed(importer, room_imported):
    if importer == "runtime":
        return room_imported == "runtime"
    return room_imported is not None and (room_imported != "quantize" or importer in ("quantize", "search"))


def test_packages_import_no_command_and_runtime_only_itself_and_only_search_imports_quantize():
    imports = [(path, file) for path in FILES if room(path) for file in imported(path)]
    wrong = [
        f"{path.relative_to(ROOT)} imports {file.relative_to(ROOT)}"
        for path, file in imports
        if not allowed(room(path), room(file))
    ]
    assert len(imports) > 50 and wrong == []
