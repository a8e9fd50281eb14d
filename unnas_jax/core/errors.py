"""The exceptions that are shown as one line, not as a traceback."""

_LONGEST = 1000  # Characters of a message: what it quotes from a file may be a megabyte.


def one_line(text: str) -> str:
    """A text without line breaks and control characters, its middle left out if it is long."""
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
    """What a run needs failed on its way, such as the network: the same command continues it.

    The message is one line. `main.py` prints it and exits with status 75 (EX_TEMPFAIL), after which
    the launch scripts start again.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))
