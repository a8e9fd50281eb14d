"""SIGTERM, a preemption's notice, as a request to save and leave, not as an end."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def on_sigterm() -> Iterator[Callable[[int], bool]]:
    """A block in which SIGTERM asks the loop to stop; yields (step) -> whether to stop after it.

    The loop asks after every step. In a run of several processes a signal to any one stops all of
    them after the same step: JAX's preemption service, which then handles the signal, agrees on
    one that none has passed yet.
    """
    if jax.distributed.is_initialized():
        yield multihost_utils.reached_preemption_sync_point
        return
    received = threading.Event()

    def request(signum: int, frame: FrameType | None) -> None:
        received.set()

    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False  # Only the main thread can handle signals.
        return
    previous = signal.signal(signal.SIGTERM, request)
    try:
        yield lambda step: received.is_set()
    finally:
        signal.signal(signal.SIGTERM, previous)
