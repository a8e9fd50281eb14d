"""SIGTERM as a request to save and leave, not as an end."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Stop:
    """Whether the run was asked to stop."""

    requested = False


@contextlib.contextmanager
def on_sigterm() -> Iterator[Stop]:
    """A block in which SIGTERM only sets `requested`; the loop looks at it after each step."""
    stop = Stop()

    def request(signum: int, frame: FrameType | None) -> None:
        stop.requested = True

    if threading.current_thread() is not threading.main_thread():
        yield stop  # Only the main thread can handle signals.
        return
    previous = signal.signal(signal.SIGTERM, request)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)
