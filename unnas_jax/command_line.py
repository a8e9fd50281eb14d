"""What all command-line programs share: mistakes of the user end in one line, not a traceback."""

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence

from absl import flags
from absl import logging as absl_logging

from unnas_jax import workdir
from unnas_jax.errors import UserError


def start_logging() -> None:
    """Shows this package's progress; of the libraries only warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("unnas_jax")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    absl_logging.set_verbosity(absl_logging.WARNING)


class Outcome:
    """The exit status that a block of `user_errors` calls for."""

    status = 0


def fail(message: str) -> int:
    """Prints one line to standard error and returns the status of a user's mistake, 2."""
    print(f"unnas_jax: {message}", file=sys.stderr)
    return 2


@contextlib.contextmanager
def user_errors() -> Iterator[Outcome]:
    """Turns a `UserError` or a full disk inside the block into one line and a status."""
    outcome = Outcome()
    try:
        yield outcome
    except UserError as error:
        outcome.status = fail(str(error))
    except Exception as error:
        if not workdir.is_full_disk(error):
            raise
        outcome.status = fail(
            "the disk is full; the last complete checkpoint is kept: make space and run the same "
            "command again"
        )


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses flags as absl does, but ends a mistake in one line and status 2."""
    try:
        return flags.FLAGS(argv)
    except (
        flags.Error,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OSError,
        UserError,
    ) as error:
        raise SystemExit(fail(" ".join(str(error).split()))) from None
