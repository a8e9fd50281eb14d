"""An error that ends one process of a run ends all of them, with the same line and status.

One process alone reads a damaged image. Without its message the others would see only that it is
gone, and a script that restarts lost runs would restart this one for ever. When a process is lost,
those that do not talk to it directly would also wait for those that do.
"""

import atexit
import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
from jax._src import distributed as jax_distributed

_KEY = "unnas_jax/refusal"
_LEFT = "unnas_jax/left"
_POLL_S = 1.0

# What a process may take to end once it has said its last. JAX aborts it if the service ends first.
_ENDING_S = 5.0

_stop = threading.Event()
_ending = threading.Lock()  # The thread that prints the last line holds it and never releases it.


def _client() -> Any:
    """JAX's coordination service, which keeps values for all processes; None in a lone one."""
    return jax_distributed.global_state.client


def tell(message: str, status: int = 2) -> None:
    """Lets all processes know why this one ends, and how; the first to do so counts."""
    _stop.set()  # From now on this process prints its own message.
    if _client() is not None:
        with contextlib.suppress(Exception):  # Another was first, or the service is gone.
            _client().key_value_set(_KEY, f"{status} process {jax.process_index()}: {message}")


def told() -> tuple[int, str] | None:
    """The status and the message with which another process ended the run."""
    if _client() is not None:
        with contextlib.suppress(Exception):  # JAX raises where there is no such value yet.
            status, _, message = str(_client().key_value_try_get(_KEY)).partition(" ")
            return int(status), message
    return None


def end(status: int, message: str, leave: Callable[[int], Any]) -> None:
    """Repeats another process's message, once, and exits with its status."""
    _ending.acquire()
    print(f"unnas_jax: {message}", file=sys.stderr, flush=True)
    leave(status)


def depart(seconds: float) -> None:
    """Says that this process prints no more; process 0 waits until all say so, at most so long."""
    client, end = _client(), time.monotonic() + seconds
    if client is None:
        return
    try:
        if jax.process_index():
            client.key_value_set(f"{_LEFT}/{jax.process_index()}", "")
            return
        for number in range(1, jax.process_count()):
            left = max(1, int(1000 * (end - time.monotonic())))
            client.blocking_key_value_get(f"{_LEFT}/{number}", left)
        time.sleep(_ENDING_S)
    except Exception:  # One is lost, or the service is gone.
        if not jax.process_index():
            time.sleep(max(0.0, end - time.monotonic()))


def watch(leave: Callable[[int], Any]) -> None:
    """Ends this process when another one has told why it ends, even in the middle of an operation.

    Args:
      leave: ends the process with a status.
    """

    def poll() -> None:
        while not _stop.wait(_POLL_S):
            ended = told()
            if ended and not _stop.is_set():
                end(*ended, leave)

    thread = threading.Thread(target=poll, name="refusal", daemon=True)
    thread.start()

    @atexit.register  # Before JAX's own, which ends the service.
    def stop() -> None:
        _stop.set()
        thread.join()
