"""The units of a sweep on one machine: a process for every device, or for few cores of a CPU."""

import gc
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

from unnas_jax.core import environment, failures, logs, memory, stopping, xla_flags
from unnas_jax.core.errors import UserError
from unnas_jax.data.workers import UNGUARDED, UNGUARDED_ADVICE, cores, start_worker
from unnas_jax.sweep import units as sweep
from unnas_jax.sweep.units import Jointly, Store, Unit, Work

_LOG = logging.getLogger("unnas_jax")

# Exit statuses of a worker.
_DISK_FULL, _STOPPED = os.EX_IOERR, os.EX_TEMPFAIL
_IDLE_DEATHS = 3  # Workers in a row that may die before they take a unit.

Slot = dict[str, str]
"""The environment of a worker, which tells it its device; `_CORES` lists cores of the machine."""

_CORES = "UNNAS_WORKER_CORES"

# XLA compiles a small network for as long as it trains it. Less effort and its older code generator
# take about half as long. Their programs are as quick where convolutions take the time, and up to
# a seventh slower where images are turned, which is less than is saved up to some 1,000 steps
# (docs/scaling.md). One effort less, 0, makes programs three to five times slower.
_XLA = {
    "xla_backend_optimization_level": "1",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_backend_extra_options": (
        "xla_cpu_disable_loop_unrolling=true,xla_cpu_disable_slp_vectorizer=true"
    ),
}
# Into how many parts, each compiled by a thread, it divides a program.
_XLA_PARTS = "xla_cpu_parallel_codegen_split_count"


def devices() -> tuple[str, int]:
    """The platform and the number of this machine's devices, without occupying one."""
    code = "import json, jax; print(json.dumps([jax.default_backend(), jax.local_device_count()]))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if found.returncode:
        reason = (found.stderr.strip() or "it was killed").splitlines()[-1]
        raise UserError(
            f"JAX cannot start on this machine: {reason}; set JAX_PLATFORMS=cpu to leave its device"
        )
    platform, count = json.loads(found.stdout.splitlines()[-1])
    return platform, count


def slots(
    platform: str, count: int, *, workers_per_device: int, cores_per_worker: int
) -> list[Slot]:
    """The environments of the workers that fill a machine.

    Args:
      platform: of its devices, as jax names it.
      count: of its devices.
      workers_per_device: on accelerators; they share a device's memory equally.
      cores_per_worker: on CPUs, where every worker has its own.
    """
    if platform == "cpu":
        affinity = getattr(os, "sched_getaffinity", None)
        numbers = sorted(affinity(0)) if affinity else list(range(cores()))
        parts = max(1, len(numbers) // cores_per_worker)
        wanted = {**_XLA, _XLA_PARTS: str(cores_per_worker)}
        flags = xla_flags.added(os.environ.get("XLA_FLAGS", ""), wanted)
        kept = os.environ.get(memory.VARIABLE, memory.TUNABLES)
        common = {"XLA_FLAGS": flags, memory.VARIABLE: kept}
        return [{_CORES: ",".join(map(str, numbers[k::parts])), **common} for k in range(parts)]
    share = f"{0.9 / workers_per_device:.3f}"
    result = []
    for device in range(count):
        if platform == "tpu":
            # One process a chip, none of which waits for the others.
            only = {
                "TPU_VISIBLE_CHIPS": str(device),
                "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
                "TPU_PROCESS_BOUNDS": "1,1,1",
            }
        else:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            names = visible.split(",") if visible else [str(k) for k in range(count)]
            only = {"CUDA_VISIBLE_DEVICES": names[device], "XLA_PYTHON_CLIENT_MEM_FRACTION": share}
        result += [dict(only) for _ in range(1 if platform == "tpu" else workers_per_device)]
    return result


def settle() -> None:
    """Takes the cores of the slot in which this worker was started.

    Before jax starts, which makes a thread for every core that it may use.
    """
    own = os.environ.get(_CORES)
    if own and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in own.split(",")})
    if own:
        memory.dispatch_at_once()
        memory.not_inherited()


def _run_worker(
    store: Store, units: Sequence[Unit], work: Work, jointly: Jointly | None, log: str
) -> None:
    """The life of a worker; its exit status says why it ended."""
    start_worker()  # Ends with its parent and leaves Ctrl-C to it.
    # Also the output of libraries, and of the interpreter when it crashes.
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    logs.start()
    gc.freeze()  # As `unnas_jax.core.starting.imported`.
    settle()
    stopping.watch()
    stopping.nothing_to_save(_STOPPED)
    try:
        ended = sweep.work_off(store, units, work, jointly=jointly)
    except Exception as error:
        if not failures.is_full_disk(error):
            raise
        sys.exit(_DISK_FULL)
    if not ended:
        sys.exit(_STOPPED)


class _Workers:
    """The processes of a sweep, restarted when they die before their time."""

    def __init__(
        self,
        store: Store,
        units: Sequence[Unit],
        work: Work,
        jointly: Jointly | None,
        places: Sequence[Slot],
        attempts: int,
    ) -> None:
        self._store, self._units, self._work, self._jointly = store, units, work, jointly
        self._places, self._attempts = places, attempts
        self._context = multiprocessing.get_context("spawn")
        self._logs = os.path.join(store.directory, "logs")
        os.makedirs(self._logs, exist_ok=True)
        self._deaths: dict[str, int] = {}
        self._idle_deaths = 0
        self.processes: dict[int, Any] = {}
        for place in range(len(places)):
            self._start(place)

    def _log(self, place: int) -> str:
        return os.path.join(self._logs, f"{os.uname().nodename}-{place}.log")

    def _start(self, place: int) -> None:
        process = self._context.Process(
            target=_run_worker,
            args=(self._store, self._units, self._work, self._jointly, self._log(place)),
            name=f"worker {place}",
        )
        with environment.changed(self._places[place]):
            process.start()
        self.processes[place] = process

    def wait(self, seconds: float) -> None:
        """Waits so long, or until a worker ends; starts those again that died."""
        connection.wait([p.sentinel for p in self.processes.values()], timeout=seconds)
        for place, process in list(self.processes.items()):
            if process.exitcode is None:
                continue
            process.join()
            del self.processes[place]
            if process.exitcode == UNGUARDED:
                raise UserError(UNGUARDED_ADVICE.removesuffix(", or use config.workers=0"))
            if process.exitcode == _DISK_FULL:
                raise OSError(28, "No space left on device")
            if process.exitcode not in (0, _STOPPED):
                self._blame(process.pid, process.exitcode, self._log(place))
                self._start(place)

    def _blame(self, pid: int, status: int, log: str) -> None:
        """Finds the unit that a dead worker had; gives it up after too many deaths."""
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        for unit in self._units:
            claim = self._store.claimed(unit)
            mine = claim and claim.process == pid and claim.host == os.uname().nodename
            if not mine or self._store.settled(unit):
                continue
            self._idle_deaths = 0
            self._deaths[unit.name] = self._deaths.get(unit.name, 0) + 1
            _LOG.warning("A worker died (%s) at %s; see %s", how, unit.name, log)
            if self._deaths[unit.name] >= self._attempts:
                times = self._deaths[unit.name]
                self._store.fail(unit, f"its worker died {times} times, at last with {how}")
            return
        self._idle_deaths += 1
        if self._idle_deaths >= _IDLE_DEATHS * len(self._places):
            raise UserError(f"sweep: workers die ({how}) before they take a unit; see {log}")

    def stop(self) -> None:
        """Asks the workers to save and leave, and waits until they did."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.join()


def run(
    store: Store,
    units: Sequence[Unit],
    work: Work,
    places: Sequence[Slot],
    *,
    attempts: int,
    report: Callable[[], None],
    every: float = 60.0,
    jointly: Jointly | None = None,
) -> bool:
    """Does units in as many processes as there are places, until none is left.

    Args:
      store: the directory of the sweep.
      units: what to do.
      work: the function that does a unit, in the workers.
      places: the environment of each worker, see `slots`.
      attempts: crashed workers after which a unit counts as failed.
      report: called every so many seconds.
      every: see `report`.
      jointly: how workers do several units at once; None: one after the other.

    Returns:
      whether it came to the end; False if a signal asked it to stop.

    Raises:
      UserError: workers cannot start.
      OSError: the disk is full.
    """
    with stopping.on_signals() as stop:
        workers = _Workers(store, units, work, jointly, places, attempts)
        try:
            reported = time.monotonic()
            while workers.processes and not stop(0):
                workers.wait(min(every, 2.0))
                if time.monotonic() - reported >= every:
                    report()
                    reported = time.monotonic()
        finally:
            workers.stop()
        return not stop(0) and all(store.settled(unit) for unit in units)
