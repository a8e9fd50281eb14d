"""Signals that a run sends to itself in a test."""

import os
import signal
import threading
from unittest import mock

from unnas_jax.core import stopping


def interrupt(number: int = signal.SIGTERM) -> None:
    """Sends this process a signal and returns when it knows: a thread receives it, maybe late."""
    known = threading.Event()
    receive = stopping._Watch._receive

    def noted(watch: stopping._Watch, received: signal.Signals) -> None:
        receive(watch, received)
        known.set()

    with mock.patch.object(stopping._Watch, "_receive", noted):
        os.kill(os.getpid(), number)
        assert known.wait(600)
