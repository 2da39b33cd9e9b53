"""User-facing errors: each message is one line that says what is wrong, where, and what is allowed."""


class InputError(Exception):
    """The input is wrong; the message says what, where, and what is allowed.

    A line of printable characters each: in a stranger's names that are quoted, what a terminal would obey, or
    take for the end of the line, is shown as its escape.
    """

    def __init__(self, *lines):
        super().__init__("\n".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text) for text in lines))


class AudioError(Exception):
    """One utterance cannot be used. The message is the reason: a kind, or `kind: detail`."""


def reason(error):
    """What the system says of an OSError, in a line."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__
