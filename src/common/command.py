"""The way in of every command: options, exit status, errors in one line, a stage alone in its folder.

A module that is a command has `main` and, where it takes options, `Options`, a Section whose fields are main's
arguments: one without a default is positional, the others are --options. It begins with

    if __name__ == "__main__":
        from src.common.command import command

        command("src.<module>")

before its imports, so that an import that fails is reported too. This module imports nothing that could fail.
"""

import argparse
import contextlib
import fcntl
import importlib
import io
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn, get_origin

from src.runtime.errors import InputError, one_line, printable, reason

USAGE, INTERRUPTED = 2, 130  # exit statuses: a command line that is wrong, as of argparse; of a shell after SIGINT


def command(name: str, failed: int = 1, alone: bool = False) -> NoReturn:
    """Run the command that is the module `name`, and end the process.

    The exit status is what `main` returns, 0 for None; `failed` where it raises an exception of whatever kind, which is
    printed in one line on standard error; USAGE where the command line is wrong. With --debug, which every command
    takes, the traceback is printed too. alone: as `alone_in_folder`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where the shell has closed it
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding lacks
    try:
        try:
            module = importlib.import_module(name)
            options = _options(module, name.removesuffix(".__main__"))
            with alone_in_folder() if alone else contextlib.nullcontext():
                status = module.main(**options)
        except SystemExit as end:  # of --help, or of a wrong command line
            status = end.code
        if sys.stdout:
            sys.stdout.flush()
    except BaseException as error:  # some libraries' own derive from no other
        status = INTERRUPTED if isinstance(error, KeyboardInterrupt) else failed
        with contextlib.suppress(OSError, AttributeError):
            if "--debug" in sys.argv:
                traceback.print_exc()
            print(_explained(error), file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        _drop_unwritten(stream)
    sys.exit(status)


def _explained(error):
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, InputError):
        return _lines(error)
    if isinstance(error, ModuleNotFoundError):
        return f"error: {printable(error)}; activate the environment (.venv), or install what is missing"
    if isinstance(error, OSError) and error.errno:
        name = f"{error.filename}: " if error.filename is not None else ""
        return f"error: {printable(name + reason(error))}"
    kind, message = type(error).__name__, one_line(error)
    message = kind if message == kind else f"{kind}: {message}"
    return f"error: unexpected {printable(message)}; --debug shows where"


def _lines(error):
    return "\n".join(f"error: {line}" for line in str(error).splitlines())


def _drop_unwritten(stream):
    """At its exit, Python would report what a closed pipe or a full disk does not take, with a status of its own."""
    try:
        if stream:
            stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"error: {printable(message)}; --help lists the options\n")


def _options(module, name) -> dict[str, Any]:
    """The options of the command line, {argument of main: value}; ends the process where one is wrong."""
    from src.common.schema import Section, validate

    model = getattr(module, "Options", Section)
    parser = _Parser(
        prog=f"python -m {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for field, about in model.model_fields.items():
        text = (about.description or "").replace("%", "%%")
        if about.annotation is bool:
            parser.add_argument(_option(field), dest=field, action="store_true", help=text)
            continue
        shape: dict[str, Any] = {"nargs": "+"} if get_origin(about.annotation) is list else {}
        if about.is_required():
            parser.add_argument(field, help=text, **shape)
        else:
            default = " ".join(map(str, about.default)) if shape else about.default
            text += f" (default: {default})" if default not in (None, "") else ""
            parser.add_argument(_option(field), dest=field, help=text, **shape)
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    given = vars(parser.parse_args())
    given.pop("debug", None)

    def typed(keys):
        return keys[0] if model.model_fields[keys[0]].is_required() else _option(keys[0])

    try:
        return dict(validate(model, given, typed))
    except InputError as error:
        parser.exit(USAGE, f"{_lines(error)}\n")


def _option(field):
    return f"--{field.rstrip('_').replace('_', '-')}"  # json_: pydantic has a method json


@contextlib.contextmanager
def alone_in_folder() -> Iterator[None]:
    """Wait until no other stage runs in the working directory, and keep others waiting.

    DVC keeps its own runs apart, but a stage outlives a DVC that was killed, and one may be started by hand.
    """
    folder = os.open(".", os.O_RDONLY)  # a lock on the folder itself leaves no file, and ends with the process
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another stage that runs in {os.getcwd()}", file=sys.stderr, flush=True)
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:
            pass  # some network file systems lock no folders
        yield
    finally:
        os.close(folder)
