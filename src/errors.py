"""Faults of the user's input, told in one line instead of a traceback."""
import contextlib
import sys


class InputError(Exception):
    """The input is wrong; the message says what, where, and what is allowed."""


@contextlib.contextmanager
def reported():
    """Run a stage: an InputError ends it with its message on standard error and exit status 1."""
    try:
        yield
    except InputError as error:
        sys.exit(f"error: {error}")
