"""The one exception that stands for a mistake of the user, shown as one line."""


class UserError(Exception):
    """Bad input: a config, file, checkpoint or dataset.

    The message is one line that names the culprit and the remedy. `main.py` and every
    command-line tool print it without a traceback and exit with status 2.
    """
