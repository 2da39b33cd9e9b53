"""How a command runs: user-facing errors in one line, a stage alone in its folder."""

import contextlib
import fcntl
import os
import sys

from src.runtime.errors import InputError, reason


@contextlib.contextmanager
def reported(status=1):
    """Run a program: an InputError, or a file that cannot be read or written, ends it with a line on standard error
    and this exit status."""
    try:
        yield
    except InputError as error:
        _end(error, status)
    except OSError as error:
        _end(f"{error.filename}: {reason(error)}" if error.filename else reason(error), status)


def _end(message, status):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


@contextlib.contextmanager
def running():
    """Run a stage, as `reported`, when no other runs in the working directory.

    DVC keeps its own runs apart, but a stage outlives a DVC that was killed, and one may be started by hand.
    """
    with reported(), _alone():
        yield


@contextlib.contextmanager
def _alone():
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
