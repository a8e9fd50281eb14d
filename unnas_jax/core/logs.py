"""What programs show while they run; importing the package changes no logging."""

import logging

from absl import logging as absl_logging


def start() -> None:
    """Shows this package's progress; of the libraries only warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("unnas_jax")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    absl_logging.set_verbosity(absl_logging.WARNING)


def only_warnings() -> None:
    """Shows no more progress: another process of the same run does."""
    logging.getLogger("unnas_jax").setLevel(logging.WARNING)
