"""The exceptions that are shown as one line, not as a traceback."""


class UserError(Exception):
    """Bad input: a config, file, checkpoint or dataset.

    The message is one line that names the culprit and the remedy. `main.py` and every
    command-line tool print it without a traceback and exit with status 2.
    """


class Interruption(Exception):
    """What a run needs failed on its way, such as the network: the same command continues it.

    The message is one line. `main.py` prints it and exits with status 75 (EX_TEMPFAIL), after which
    the launch scripts start again.
    """
