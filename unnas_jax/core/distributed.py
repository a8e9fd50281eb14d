"""Several processes that are one run: how they meet, wait for each other, and end when one is lost.

The cluster starts them all with the same command (one process a TPU host, one a GPU under SLURM);
they meet through `jax.distributed`. Process 0 writes what people read.
"""

import contextlib
import glob
import importlib.util
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from typing import NoReturn

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from unnas_jax.core import failures, refusal
from unnas_jax.core.errors import Interruption, UserError
from unnas_jax.core.logs import telling

LOST = os.EX_TEMPFAIL
"""The exit status when another process was lost, 75: the same command continues."""

# Seconds without an answer of a host, after which its process and the run are given up.
_HEARTBEAT_TIMEOUT_S = 60

# Schedulers start all processes of a run within minutes, or none.
_MEETING_TIMEOUT_S = 300

# Processes begin together; what they do before they meet (imports, the preparation of a small
# dataset) takes some longer than others.
_BARRIER_TIMEOUT_S = 600

_GRACE_S = 20.0

# What the errors of a broken connection have in common: of Gloo (CPUs), NCCL (GPUs) and the
# coordination service.
_SIGNS = ("gloo", "nccl", "unavailable", "connection", "heartbeat", "coordination", "barrier")


def in_cluster(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process was started as one of several by something that JAX understands.

    That is SLURM, Open MPI or GKE with more than one task, or a Cloud TPU VM. A lone machine, a
    lone SLURM task and a lone TPU container need no distributed runtime.
    """
    if "SLURM_STEP_NODELIST" in environ and int(environ.get("SLURM_NTASKS", "1")) > 1:
        return True
    if int(environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        return True
    workers = environ.get("TPU_PROCESS_ADDRESSES", environ.get("TPU_WORKER_HOSTNAMES"))
    if workers is not None:
        return "," in workers
    chips = glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*")
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def start(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes of the run; does nothing for a run of one process.

    To be called before JAX sees its devices.

    Args:
      coordinator: HOST:PORT, on which process 0 listens; all three or none are given.
      num_processes: how many processes take part.
      process_id: which of them this is, from 0.

    Raises:
      UserError: the arguments do not fit together, or the processes did not find each other.
    """
    given = (coordinator, num_processes, process_id)
    if given.count(None) not in (0, len(given)):
        raise UserError(
            "--coordinator, --num_processes and --process_id belong together; give all or none"
        )
    if coordinator is None and not in_cluster():
        return
    if num_processes is not None and not 0 <= (process_id or 0) < num_processes:
        raise UserError(f"--process_id={process_id}: must be from 0 to {num_processes - 1}")
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise UserError(f"--coordinator={coordinator}: write HOST:PORT")
    where = f" at {coordinator}" if coordinator else ""
    waiting = f"Waiting for the other processes of this run{where}, {_MEETING_TIMEOUT_S} s at most"
    # JAX's own timeout aborts the process, with a hundred lines.
    given_up = threading.Timer(_MEETING_TIMEOUT_S, _give_up, (waiting,))
    given_up.daemon = True
    given_up.start()
    try:
        with telling(waiting):
            jax.distributed.initialize(
                *given,
                initialization_timeout=_MEETING_TIMEOUT_S + 60,
                heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT_S,
            )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the processes of this run did not find each other ({failures.first_line(error)}); "
            "give --coordinator, --num_processes and --process_id, or --nodistributed to run alone"
        ) from error
    finally:
        given_up.cancel()
    refusal.watch(leave)


def _give_up(waiting: str) -> NoReturn:
    print(
        f"unnas_jax: {waiting[0].lower()}{waiting[1:]}: not all came; start all of them with the "
        "same --coordinator and --num_processes, each with its --process_id, or one alone with "
        "--nodistributed",
        file=sys.stderr,
        flush=True,
    )
    os._exit(LOST)


def is_primary() -> bool:
    """Whether this process is the one that writes logs, pictures and results."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Returns when all processes of the run are here."""
    if jax.process_count() > 1:
        # The coordination service waits longer than Gloo does for its first connection.
        with telling(f"Waiting for the other processes, {_BARRIER_TIMEOUT_S} s at most", after=5):
            ocp.multihost.get_barrier_sync_fn()(key=name, timeout_ms=1000 * _BARRIER_TIMEOUT_S)


def largest(number: int) -> int:
    """The largest of the numbers that the processes of the run pass."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


@contextlib.contextmanager
def all_or_none(name: str) -> Iterator[None]:
    """A block that all processes run: an error in one of them is raised in all.

    Raises:
      UserError: the block's own or, in the other processes, one that names that process.
    """
    own = None
    try:
        yield
    except UserError as error:
        own = error
    if jax.process_count() > 1:
        barrier(f"all_or_none:{name}")
        refused = np.flatnonzero(multihost_utils.process_allgather(np.bool_(own is not None)))
        if refused.size and own is None:
            own = UserError(f"process {refused[0]} refuses to start; its message says why")
    if own is not None:
        raise own


def leave(status: int) -> NoReturn:
    """Writes out what was printed and ends this process, without waiting for lost ones."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Process 0 keeps the coordination service: its end would cut off what the others still print.
    refusal.depart(_GRACE_S)
    os._exit(status)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """A block in which an unforeseen error ends the process at once.

    When a process is lost, the collective operations of the others fail or hang. Closing files and
    checkpoints in order would then wait for the lost one. What was saved stays saved. Where an
    operation hangs, JAX's coordination service ends the process after a minute without a sign of
    life. A mistake of the user, which may be seen by one process alone, is told to the others.
    """
    try:
        yield
    except UserError as error:
        refusal.tell(str(error))
        raise
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        ended = refusal.told()
        if ended:
            refusal.end(*ended, leave)
        # The error is this process's alone; the others lose this process.
        known = error if isinstance(error, Interruption) else failures.explanation(error)
        if known is not None:
            if isinstance(known, UserError):
                refusal.tell(str(known))
            print(f"unnas_jax: {known}", file=sys.stderr)
            leave(LOST if isinstance(known, Interruption) else 2)
        if not any(sign in str(error).lower() for sign in _SIGNS):
            traceback.print_exc()
            leave(1)
        words = (
            f"lost the others ({failures.first_line(error)}); the same command in all processes "
            "continues from the last checkpoint"
        )
        refusal.tell(words, LOST)
        print(
            f"unnas_jax: process {jax.process_index()} of {jax.process_count()} {words}",
            file=sys.stderr,
        )
        leave(LOST)
