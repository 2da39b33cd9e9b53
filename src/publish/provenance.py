"""What a release was made from: the commit of the code, parameters, checksums."""

from collections.abc import Iterable
from pathlib import Path

from src.common.files import sha256
from src.common.git import code_version
from src.common.params import Params
from src.data import manifest


def provenance(params: Params, files: Iterable[Path]) -> dict:
    """`commit` (see `code_version`), `params`, and `checksums` {path: SHA-256} of files, the manifest and a local
    encoder.

    Of params those are left out that are no part of the result: `pretrain`, and the storage of the search, whose URL
    may have a password in it.
    """
    encoder = Path(params.encoder.source)
    paths = [*files, Path(manifest.PATH), *(encoder.iterdir() if encoder.is_dir() else ())]
    return {
        "commit": code_version(),
        "params": params.model_dump(mode="json", exclude={"pretrain": True, "qat_search": {"storage"}}),
        "checksums": {str(path): sha256(path) for path in sorted(paths) if path.is_file()},
    }
