"""Processes that decode images: one pool for all streams of batches of a run.

Batches come back in memory that belongs to no file system (memfd), so that the size of /dev/shm, 64
MB in a container by default, does not matter, and that a process which is killed leaves nothing.
"""

import atexit
import collections
import contextlib
import mmap
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import connection, reduction
from typing import Any

import numpy as np

from unnas_jax.core.errors import Interruption, UserError

Batch = dict[str, np.ndarray]

Make = Callable[[int], Sequence[Mapping[str, Any]]]
"""(step) -> the examples of this process's part of the batch; picklable."""

MAX_WORKERS = 16

UNGUARDED = os.EX_USAGE
"""The exit status of a process that finds itself in the middle of importing its parent's script."""

UNGUARDED_ADVICE = (
    "the script runs again in the processes that it starts; put what it does into a block "
    'if __name__ == "__main__":, or use config.workers=0'
)

_ALIGNMENT = 64  # Bytes; arrays that begin so can go to a device without a copy.


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def count(workers: int) -> int:
    """Processes for `config.workers`, a number or -1: by the number of cores.

    Decoding and resizing leave Python's lock, so that threads share few cores well, start at once
    and copy nothing. The rest of an example (reading, parsing, drawing) holds the lock for about a
    tenth of the time: beyond about eight threads they all wait for it, and the training loop with
    them. So from 5 cores on there are processes, for half of the cores: cores are often only
    hyperthreads, and the main process and the backend need some.
    """
    if workers >= 0:
        return workers
    available = cores()
    return 0 if available <= 4 else min(available // 2, MAX_WORKERS)


def refuse_unguarded_main() -> None:
    """Ends a worker process that runs its parent's script.

    A process that is spawned imports the script of its parent. The worker would then run again
    whatever the script does outside of `if __name__ == "__main__":`.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)


# In a process that works.


def start_worker() -> None:
    """Runs first in every process that works for another."""
    # Ctrl-C goes to the whole group: the main process alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A main process that is killed cannot close its workers, and they would wait for it for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(pipe: connection.Connection) -> None:
    """Makes the batches that are asked for, of as many streams as there are."""
    start_worker()
    # So does SIGTERM where a scheduler sends it to all processes of a job.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    makers: dict[int, Any] = {}
    with contextlib.suppress(EOFError, ConnectionError):  # The main process has ended.
        while True:
            kind, stream, value = pipe.recv()
            if kind == "open":
                makers[stream] = value
            elif kind == "close":
                del makers[stream]
            else:
                _answer(pipe, makers, stream, value)


def _answer(pipe: connection.Connection, makers: dict[int, Any], stream: int, step: int) -> None:
    """Sends the batch, or the exception that was raised."""
    try:
        if isinstance(makers[stream], bytes):
            makers[stream] = pickle.loads(makers[stream])
        columns, descriptor, size = _pack(makers[stream](step))
    except (UserError, Interruption) as error:
        pipe.send((stream, step, error))
    except (MemoryError, OSError) as error:
        words = " ".join(str(error).split()) or "MemoryError"
        refusal = UserError(
            f"config.workers: too little memory for a batch in a process that decodes ({words}); "
            "use fewer workers or a smaller batch"
        )
        pipe.send((stream, step, refusal))
    except Exception:
        pipe.send(
            (stream, step, RuntimeError(f"in a process that decodes:\n{traceback.format_exc()}"))
        )
    else:
        pipe.send((stream, step, (columns, size)))
        reduction.send_handle(pipe, descriptor, 0)
        os.close(descriptor)


_Columns = dict[str, tuple[tuple[int, ...], str, int]]
"""Name -> shape, dtype and first byte."""


def _pack(examples: Sequence[Mapping[str, Any]]) -> tuple[_Columns, int, int]:
    """Stacks examples in memory that another process can map: columns, descriptor, bytes."""
    columns: _Columns = {}
    size = 0
    for name, value in examples[0].items():
        one = np.asarray(value)
        columns[name] = ((len(examples), *one.shape), one.dtype.str, size)
        column = one.nbytes * len(examples)
        size += -(-column // _ALIGNMENT) * _ALIGNMENT
    descriptor = _anonymous(size)
    try:
        memory = mmap.mmap(descriptor, size)
        for name, array in _arrays(memory, columns).items():
            np.stack([example[name] for example in examples], out=array)
    except BaseException:
        os.close(descriptor)
        raise
    return columns, descriptor, size


def _anonymous(size: int) -> int:
    """The descriptor of a file of so many bytes in memory; where there is none, on the disk."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("batch", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.truncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _arrays(memory: mmap.mmap, columns: _Columns) -> Batch:
    """Arrays that keep the memory mapped for as long as one of them is used."""
    return {
        name: np.ndarray(shape, dtype, memory, offset)
        for name, (shape, dtype, offset) in columns.items()
    }


# In the main process.


class _Worker:
    """A process and its open requests."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other,), daemon=True)
        self.process.start()
        other.close()
        self.asked = 0


class _Pool:
    """Some processes; every method is called under the lock of the module."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.streams: set[int] = set()
        self._workers: list[_Worker] = []
        self._done: dict[tuple[int, int], Any] = {}
        self._number = 0
        self._end: BaseException | None = None
        try:
            for _ in range(size):
                self._workers.append(_Worker())
        except OSError as error:
            self.kill()
            raise UserError(
                f"config.workers={size}: cannot start so many processes ({error.strerror}); use "
                "fewer"
            ) from error

    def open(self, make: Make) -> int:
        """Begins a stream."""
        self._number += 1
        pickled = pickle.dumps(make)
        for worker in self._workers:
            self._send(worker, ("open", self._number, pickled))
        self.streams.add(self._number)
        return self._number

    def ask(self, stream: int, step: int) -> None:
        """Has a batch made by the process that has the least to do."""
        self._check()
        worker = min(self._workers, key=lambda worker: worker.asked)
        self._send(worker, ("make", stream, step))
        worker.asked += 1

    def take(self, stream: int, step: int) -> Batch:
        """Waits for a batch that was asked for."""
        while (stream, step) not in self._done:
            self._check()
            self._receive()
        result = self._done.pop((stream, step))
        if isinstance(result, Exception):
            raise result
        return result

    def close(self, stream: int) -> None:
        """Ends a stream and drops its batches."""
        self.streams.discard(stream)
        for worker in self._workers:
            with contextlib.suppress(OSError):  # Whoever waits for a dead one says so.
                worker.pipe.send(("close", stream, None))
        self._done = {key: batch for key, batch in self._done.items() if key[0] != stream}

    def _check(self) -> None:
        """Ends every stream of a pool as the first of them ended."""
        if self._end is not None:
            raise self._end

    def kill(self) -> None:
        """Kills the processes; the next stream starts others."""
        if _POOLS.get(self.size) is self:
            del _POOLS[self.size]
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers = []

    def _send(self, worker: _Worker, message: tuple[str, int, Any]) -> None:
        try:
            worker.pipe.send(message)
        except OSError:
            self._say_dead(worker)

    def _receive(self) -> None:
        """Waits for an answer of any process."""
        by_pipe = {worker.pipe: worker for worker in self._workers}
        for pipe in connection.wait(list(by_pipe)):
            worker = by_pipe[pipe]  # type: ignore[index]
            try:
                stream, step, result = worker.pipe.recv()
                if not isinstance(result, Exception):
                    descriptor = reduction.recv_handle(worker.pipe)
                    try:
                        columns, size = result
                        result = _arrays(mmap.mmap(descriptor, size), columns)
                    finally:
                        os.close(descriptor)
            except (EOFError, ConnectionError, RuntimeError):
                self._say_dead(worker)
            worker.asked -= 1
            if stream in self.streams:
                self._done[stream, step] = result

    def _say_dead(self, worker: _Worker) -> None:
        worker.process.join()
        status = worker.process.exitcode or 0
        if status == UNGUARDED:
            # The main module is a script, which does not handle UserError.
            print(f"unnas_jax: {UNGUARDED_ADVICE}", file=sys.stderr)
            self._end = SystemExit(2)
        else:
            killed = f"was killed by signal {-status}, most likely for want of memory"
            how = killed if status < 0 else f"ended with status {status}"
            self._end = Interruption(
                f"a process that decodes images {how}; the same command "
                "continues; use fewer with config.workers if it happens again"
            )
        self.kill()
        raise self._end


_LOCK = threading.RLock()
_POOLS: dict[int, _Pool] = {}


@atexit.register
def _kill_all() -> None:
    for pool in list(_POOLS.values()):
        pool.kill()


def _leave(pool: _Pool, number: int) -> None:
    """Ends a stream of a pool, and with its last one the processes."""
    with _LOCK:
        pool.close(number)
        if not pool.streams:
            pool.kill()


class Stream:
    """The batches of some steps, in order, made ahead by the processes of the run.

    All streams of a run that ask for the same number of processes share them: they begin with the
    first of these streams and end with the last.

    Args:
      make: makes a batch.
      steps: which of them.
      workers: processes.
    """

    def __init__(self, make: Make, steps: Sequence[int], workers: int) -> None:
        self._steps, self._asked = iter(steps), collections.deque[int]()
        with _LOCK:
            if workers not in _POOLS:
                _POOLS[workers] = _Pool(workers)
            self._pool = _POOLS[workers]
            try:
                self._number = self._pool.open(make)
            except BaseException:
                _leave(self._pool, 0)  # Unless others use it.
                raise
            # Also if it was never closed.
            self.close = weakref.finalize(self, _leave, self._pool, self._number)
            self.close.atexit = False
            # Every process works on one batch and one is ready, so that memory stays bounded.
            for _ in range(workers):
                self._ask()

    def _ask(self) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._asked.append(step)
            self._pool.ask(self._number, step)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        with _LOCK:
            if not self._asked or not self.close.alive:
                self.close()
                raise StopIteration
            self._ask()
            return self._pool.take(self._number, self._asked.popleft())
