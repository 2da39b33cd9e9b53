"""Faults of the user's input, told in one line instead of a traceback."""
import contextlib
import sys


class InputError(Exception):
    """The input is wrong; the message says what, where, and what is allowed.

    A line of printable characters each: in a stranger's names that are quoted, what a terminal would obey, or
    take for the end of the line, is shown as its escape.
    """

    def __init__(self, *lines):
        super().__init__("\n".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text) for text in lines))


@contextlib.contextmanager
def reported(status=1):
    """Run a program: an InputError ends it with its message on standard error and this exit status."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(status)
