"""Faults of the user's input, told in one line instead of a traceback."""
import contextlib
import sys


class InputError(Exception):
    """The input is wrong; the message says what, where, and what is allowed."""


@contextlib.contextmanager
def reported(status=1):
    """Run a program: an InputError ends it with its message on standard error and this exit status."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(status)
