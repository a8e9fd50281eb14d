"""The exceptions that are shown as one line, not as a traceback."""

_LONGEST = 1000  # Characters of a message, which may quote a megabyte of a file.


def one_line(text: str) -> str:
    """A text on one line, without control characters; of a long one the middle is left out."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 320]} ... {text[-300:]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


class UserError(Exception):
    """Bad input: a config, file, checkpoint or dataset.

    The message is one line that names the culprit and the remedy. `main.py` and every
    command-line tool print it without a traceback and exit with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Interruption(Exception):
    """Something that a run needs failed, such as the network; the same command continues the run.

    The message is one line. `main.py` prints it and exits with status 75 (EX_TEMPFAIL), after which
    the launch scripts start again.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))
