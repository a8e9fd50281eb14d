"""Objects in processes of their own, which work by turns.

Libraries in one process disturb each other: their threads take the cores from one another, and what
one has changed about the memory holds for all. In processes of their own each is as in a program of
its own, and if only one works at a time, a machine whose speed drifts is fair to all.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import connection
from typing import Any

from unnas_jax.core import environment
from unnas_jax.core.errors import UserError

_SPAWN = multiprocessing.get_context("spawn")

# Seconds that a process has to end by itself once nothing is asked of it any more.
_PATIENCE = 5.0


@dataclasses.dataclass(frozen=True)
class Turn:
    """What a process did in a turn.

    Attributes:
      result: what the method returned.
      wall_s: how long it took, without the way through the pipe.
      cpu_s: of all threads of the process.
      peak_mb: the most memory that the process has had so far, its imports included.
    """

    result: Any
    wall_s: float
    cpu_s: float
    peak_mb: float


def _peak_mb() -> float:
    """Linux counts in KiB, macOS in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def _measured(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Turn:
    start = time.perf_counter(), time.process_time()
    result = function(*arguments)
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    return Turn(result, wall, cpu, _peak_mb())


def _in_words(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {os.path.basename(place.filename)}:{place.lineno}: {error}"


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _serve(
    pipe: connection.Connection, make: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """The life of a process: makes the object, then calls the methods that are asked for."""
    # Ctrl-C goes to the whole group: the main process alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, ConnectionError):  # The main process has had enough.
        try:
            made = make(*arguments)
            pipe.send(None)
            while True:
                name, *rest = pipe.recv()
                pipe.send(_measured(getattr(made, name), tuple(rest)))
        except (EOFError, ConnectionError):
            raise
        except Exception as error:
            pipe.send(_in_words(error))


class Process:
    """An object in a process that `started` started."""

    def __init__(
        self, name: str, process: multiprocessing.process.BaseProcess, pipe: connection.Connection
    ) -> None:
        self.name, self._process, self._pipe = name, process, pipe

    def turn(self, method: str, *arguments: Any) -> Turn:
        """Calls a method of the object and waits for what it returns.

        Raises:
          UserError: it failed, or the process died.
        """
        with contextlib.suppress(ConnectionError):  # That it died is seen below.
            self._pipe.send((method, *arguments))
        found = self.answer()
        assert isinstance(found, Turn)
        return found

    def answer(self) -> Turn | None:
        """What the process says next; raises as `turn`."""
        try:
            found = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join(_PATIENCE)
            code = self._process.exitcode or 0
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
            raise UserError(f"{self.name}: its process ended with {how}") from None
        if isinstance(found, str):
            raise UserError(f"{self.name}: {found}")
        return found


@contextlib.contextmanager
def started(
    name: str,
    make: Callable[..., Any],
    *arguments: Any,
    variables: Mapping[str, str] = types.MappingProxyType({}),
) -> Iterator[Process]:
    """A process with an object of its own, which ends with the block.

    Args:
      name: how errors call it.
      make: makes the object; the process imports its module first, and what that imports.
      arguments: of `make`.
      variables: of its environment, besides or instead of those here.

    Raises:
      UserError: the object cannot be made.
    """
    pipe, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_serve, args=(theirs, make, arguments), name=name)
    with environment.changed(variables):
        process.start()
    theirs.close()
    try:
        found = Process(name, process, pipe)
        found.answer()  # Nothing else works while it is made.
        yield found
    finally:
        pipe.close()
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
