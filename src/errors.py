"""Faults of the user's input or machine, told in one line instead of a traceback."""
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
    """Run a program: an InputError, or a file that cannot be read or written, ends it with a line on standard error
    and this exit status."""
    try:
        yield
    except InputError as error:
        _end(error, status)
    except OSError as error:
        _end(f"{error.filename}: {reason(error)}" if error.filename else reason(error), status)


def reason(error):
    """What the system says of an OSError, in a line."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__


def _end(message, status):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
