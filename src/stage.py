"""How a stage runs: alone in its folder, its faults told in one line."""
import contextlib
import fcntl
import os
import sys

from src.errors import reported


@contextlib.contextmanager
def running():
    """Run a stage, as `errors.reported`, when no other runs in the working directory.

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
