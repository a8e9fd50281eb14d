"""What programs show while they run; importing the package changes no logging."""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Iterator

from absl import logging as absl_logging

_LOG = logging.getLogger("unnas_jax")

_FORMAT = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")

_SILENCE_S = 60.0  # Seconds without a line.


def start() -> None:
    """Shows this package's progress, and only warnings of the libraries.

    To be called before libraries are imported: some log while they are imported.
    """
    if _LOG.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMAT)
    _LOG.addHandler(handler)
    _LOG.setLevel(logging.INFO)
    _LOG.propagate = False
    absl_logging.set_verbosity(absl_logging.WARNING)
    # On a slow machine its first import warns, before the first line, that it looks for fonts.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)


@contextlib.contextmanager
def shown(progress: bool = True) -> Iterator[None]:
    """A block that shows this package's progress, unless the program has its own handlers of it.

    Logging is then as it was before.
    """
    if not progress or _LOG.handlers:
        yield
        return
    level, propagate = _LOG.level, _LOG.propagate
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMAT)
    _LOG.addHandler(handler)
    _LOG.setLevel(logging.INFO)
    _LOG.propagate = False
    try:
        yield
    finally:
        _LOG.removeHandler(handler)
        _LOG.setLevel(level)
        _LOG.propagate = propagate


def only_errors() -> None:
    """Shows no more progress and no warnings: process 0 shows those of the whole run."""
    _LOG.setLevel(logging.ERROR)


def duration(seconds: float) -> str:
    """A time in the two units that matter, as in "1 h 05 min"."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


@contextlib.contextmanager
def telling(what: str, *, when: bool = True, after: float = 0.0) -> Iterator[None]:
    """A block that says what it does, and for how long, if it takes long.

    Args:
      what: what the block does, as the beginning of a line.
      when: whether to say anything.
      after: seconds after which it says something.
    """
    if not when:
        yield
        return
    ended, start = threading.Event(), time.monotonic()
    told = after == 0
    if told:
        _LOG.info("%s ...", what)

    def tell() -> None:
        nonlocal told
        wait = after or _SILENCE_S
        while not ended.wait(wait):
            told, wait = True, _SILENCE_S
            _LOG.info("%s, for %s so far ...", what, duration(time.monotonic() - start))

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if told:
        _LOG.info("%s: done after %s.", what, duration(time.monotonic() - start))
