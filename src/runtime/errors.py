"""User-facing errors, each a line that says what is wrong, where, and what is allowed; what their texts share."""

_LONGEST = 300  # characters of what a library says


class InputError(Exception):
    """The input is wrong; the message says what, where, and what is allowed: `printable` lines."""

    def __init__(self, *lines: str):
        super().__init__("\n".join(map(printable, lines)))


class AudioError(Exception):
    """One utterance cannot be used. The message is the reason: a kind, or `kind: detail`."""


def printable(text: object) -> str:
    """A text as a line of printable characters: in a stranger's names, what a terminal would obey, or take for the
    end of the line, is shown as its escape."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in str(text))


def count(number: int, noun: str) -> str:
    """`1 speaker`, `2 speakers`, `12,345 trials`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def one_line(error: BaseException) -> str:
    """The message of an exception in one line, of at most 300 characters; its type where it has no message."""
    return " ".join(str(error).split())[:_LONGEST] or type(error).__name__


def reason(error: OSError) -> str:
    """What the system says of an OSError, in a line."""
    return error.strerror or one_line(error)
