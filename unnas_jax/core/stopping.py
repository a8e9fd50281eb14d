"""Signals as requests to save and leave: SIGTERM, a preemption's notice, SIGINT (Ctrl-C), SIGHUP.

The first one asks; a second one leaves at once. Where there is nothing to save yet, the first one
leaves at once, too. A thread receives them: the main one may be in the compiler for minutes.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

# Schedulers and shells send a signal to a process and again to its group.
_SAME_S = 0.2


def _say(text: str) -> None:
    print(f"unnas_jax: {text}", file=sys.stderr, flush=True)


def _one_of_several() -> bool:
    """Whether this process is one of several of a run."""
    # jax takes seconds to import; until it is done it may lack this.
    distributed: Any = getattr(sys.modules.get("jax"), "distributed", None)
    return hasattr(distributed, "is_initialized") and bool(distributed.is_initialized())


class _Watch:
    """Receives the signals from now on that this process does not ignore, until it is closed.

    Attributes:
      asked: whether one came.
      status: the exit status of a program that has nothing to save.
      leave: whether a signal ends the program now; otherwise it only asks.
    """

    def __init__(self) -> None:
        self.asked = False
        self.status: int | None = None
        self.leave = False
        self._first = 0.0
        # Signals that the parent ignores stay ignored: nohup's SIGHUP, Ctrl-C in a sweep's
        # processes. In a run of several processes JAX's preemption service receives SIGTERM.
        own = () if _one_of_several() else (signal.SIGTERM,)
        taken = [
            number
            for number in (signal.SIGINT, signal.SIGHUP, *own)
            if signal.getsignal(number) != signal.SIG_IGN
        ]
        self._receiving, self._sending = os.pipe()
        os.set_blocking(self._sending, False)
        self._wakeup = signal.set_wakeup_fd(self._sending, warn_on_full_buffer=False)
        self._previous: dict[Any, Any] = {
            number: signal.signal(number, lambda number, frame: None) for number in taken
        }
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        """Gives the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        os.close(self._sending)

    def _watch(self) -> None:
        while numbers := os.read(self._receiving, 1):
            if numbers[0] in self._previous:
                self._receive(signal.Signals(numbers[0]))
        os.close(self._receiving)

    def _receive(self, number: signal.Signals) -> None:
        if self.asked:
            if time.monotonic() - self._first > _SAME_S:
                _say(f"{number.name} again: leaves at once; the last checkpoint is kept")
                os._exit(128 + number)
            return
        self.asked, self._first = True, time.monotonic()
        if _one_of_several():
            os.kill(os.getpid(), signal.SIGTERM)  # All processes stop after the same step.
        elif self.leave:
            self.leave_now(number.name)
        _say(f"{number.name}: saves and leaves after this step; once more leaves at once")

    def begin(self) -> None:
        """Marks the beginning of a program that has nothing to save yet."""
        self.leave = self.status is not None and not _one_of_several()
        if self.leave and self.asked:
            self.leave_now("a signal")

    def leave_now(self, why: str) -> None:
        """Ends the process, which has nothing to save."""
        assert self.status is not None
        _say(f"stopped by {why} before there was something to save; the same command continues")
        os._exit(self.status)


_of_program: _Watch | None = None


def watch() -> None:
    """Receives signals for a program, before its imports; to be called by its main thread.

    A signal is answered as soon as `nothing_to_save` says how.
    """
    global _of_program
    _of_program = _Watch()


def nothing_to_save(status: int) -> None:
    """From now on a signal ends the program with a status while no run has something to save."""
    if _of_program is not None:
        _of_program.status = status
        _of_program.begin()


@contextlib.contextmanager
def on_signals() -> Iterator[Callable[[int], bool]]:
    """A block in which signals ask to stop; yields a function: step -> whether to stop after it.

    The loop calls it after every step; from the first call on it has something to save. In a run
    of several processes a signal to any one stops all of them after the same step: JAX's preemption
    service agrees on a step that no process has passed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False  # Only the main thread can receive signals.
        return
    receiver = _of_program or _Watch()
    receiver.begin()

    def stop(step: int) -> bool:
        receiver.leave = False
        if _one_of_several():
            # Imported here: a program can then receive signals before it imports jax.
            from jax.experimental import multihost_utils

            return bool(multihost_utils.reached_preemption_sync_point(step))
        return receiver.asked

    try:
        yield stop
    finally:
        if receiver is not _of_program:
            receiver.close()
