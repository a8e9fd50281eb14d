"""Many jobs in processes of their own, and a line of progress."""

import concurrent.futures
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from unnas_jax.core.errors import UserError
from unnas_jax.data import workers as workers_lib

_PROGRESS_SECONDS = 2.0
_POLL_SECONDS = 1.0


class Progress:
    """A line on standard error, now and then; on a terminal it is written over.

    Args:
      what: what is done, as in `listing`.
      total: the number of examples, or whatever is counted.
      done: of them, by an earlier run: they do not count for the rate.
    """

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._what, self._total, self._done, self._first = what, total, done, done
        self._start = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def add(self, count: int) -> None:
        """Counts some more, and says so now and then."""
        self._done += count
        now = time.monotonic()
        if now - self._shown > _PROGRESS_SECONDS * (1 if self._terminal else 10):
            self._shown = now
            self._show("\r" if self._terminal else "", "" if self._terminal else "\n")

    def _show(self, begin: str, end: str) -> None:
        rate = (self._done - self._first) / max(time.monotonic() - self._start, 1e-9)
        left = (self._total - self._done) / rate if rate else 0.0
        line = (
            f"{begin}{self._what}: {self._done:,} of {self._total:,} "
            f"({100 * self._done / max(self._total, 1):.0f}%), {rate:,.0f} a second, "
            f"{left / 60:.0f} min left  "
        )
        print(line, end=end, file=sys.stderr, flush=True)

    def end(self) -> None:
        """The last line."""
        self._show("\r" if self._terminal else "", "\n")


# The function that `tick` calls in this process.
_tick: Callable[[int], None] | None = None


def tick(count: int = 1) -> None:
    """Counts what a job has done, in the line of the run that it is a part of."""
    if _tick:
        _tick(count)


def _start_process(counter: Any) -> None:
    global _tick
    workers_lib.start_worker()

    def add(count: int) -> None:
        with counter.get_lock():
            counter.value += count

    _tick = add


def run(function: Callable[..., None], jobs: Sequence[Any], workers: int, show: Progress) -> None:
    """Does function(*job) for every job.

    Args:
      function: a picklable one, which calls `tick` as it goes on.
      jobs: its arguments.
      workers: processes; with one or none, or a single job, this process does it.
      show: the line that tells how far it is.

    Raises:
      UserError: a process died.
    """
    global _tick
    if workers <= 1 or len(jobs) <= 1:
        _tick = show.add
        for job in jobs:
            function(*job)
        return
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(jobs)), context, _start_process, (counter,)
    )
    shown = 0
    try:
        left = {pool.submit(function, *job) for job in jobs}
        while left:
            done, left = concurrent.futures.wait(
                left, _POLL_SECONDS, concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                future.result()
            counted = counter.value
            show.add(counted - shown)
            shown = counted
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            "a process died, most likely for want of memory; run the same command with fewer "
            "--workers, it goes on where it was"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
