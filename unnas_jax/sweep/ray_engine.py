"""The units of a sweep on a Ray cluster: one task a unit, with its accelerator as a resource.

The workdir must be on a file system that all nodes share, the package installed on each of them.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from unnas_jax.core import extras, stopping
from unnas_jax.core.errors import UserError
from unnas_jax.sweep import units as sweep
from unnas_jax.sweep.units import Store, Unit, Work

_LOG = logging.getLogger("unnas_jax")


def resources(
    cluster: dict[str, float], *, workers_per_device: int, cores_per_worker: int
) -> dict[str, Any]:
    """The resources of a unit on a cluster: a share of a GPU, a TPU chip, or cores."""
    if cluster.get("GPU"):
        share = 0.9 / workers_per_device
        variables = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{share:.3f}"}
        return {"num_gpus": 1 / workers_per_device, "runtime_env": {"env_vars": variables}}
    if cluster.get("TPU"):
        return {"num_cpus": 0, "resources": {"TPU": 1}}
    return {"num_cpus": cores_per_worker}


def run(
    store: Store,
    units: Sequence[Unit],
    work: Work,
    *,
    address: str,
    attempts: int,
    workers_per_device: int,
    cores_per_worker: int,
    report: Callable[[], None],
    every: float = 60.0,
) -> bool:
    """Does units as tasks of a Ray cluster, until none is left.

    Ray starts a task again on another node when its worker or node dies. A task waits for the
    claim of its unit: a process that outlived its node may still be at it, and finish it.

    Args:
      store: the directory of the sweep, on a file system that all nodes share.
      units: what to do.
      work: how.
      address: of the cluster; `auto` finds the one that this machine belongs to.
      attempts: crashed nodes or workers after which a unit counts as failed.
      workers_per_device: units that share a GPU.
      cores_per_worker: for each unit, in clusters without accelerators.
      report: called every so many seconds.
      every: see `report`.

    Returns:
      whether it came to the end; False if a signal asked it to stop.

    Raises:
      UserError: Ray is not installed, or there is no cluster.
    """
    extras.require("ray", "config.sweep.engine='ray'")
    import ray

    joined = not ray.is_initialized()
    if joined:
        _join(ray, address)
    try:
        options = resources(
            ray.cluster_resources(),
            workers_per_device=workers_per_device,
            cores_per_worker=cores_per_worker,
        )
        # One unit a process: its memory and its device are free afterwards.
        remote: Any = ray.remote(max_retries=attempts - 1, max_calls=1, **options)
        task = remote(sweep.process)
        where, how = ray.put(store), ray.put(work)
        pending = {
            task.options(name=unit.name).remote(where, unit, how, wait=True): unit
            for unit in units
            if not store.settled(unit)
        }
        reported = time.monotonic()
        with stopping.on_signals() as stop:
            while pending and not stop(0):
                ready, _ = ray.wait(list(pending), timeout=min(every, 2.0))
                for reference in ready:
                    unit = pending.pop(reference)
                    _settle(ray, store, unit, reference)
                if time.monotonic() - reported >= every:
                    report()
                    reported = time.monotonic()
            for reference in pending:
                ray.cancel(reference, force=True)
    finally:
        if joined:
            ray.shutdown()
    return all(store.settled(unit) for unit in units)


def _join(ray: Any, address: str) -> None:
    """Connects to a cluster; raises `UserError` if there is none."""
    try:
        host, _, port = address.rpartition(":")
        if port.isdecimal() and "/" not in host:
            # Where nobody listens, Ray would try for many minutes.
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"config.sweep.address={address!r}: no Ray cluster there "
            f"({str(error).splitlines()[0]}); start one with `ray start --head`"
        ) from error


def _settle(ray: Any, store: Store, unit: Unit, reference: Any) -> None:
    """Notes what became of a unit whose task ended."""
    try:
        outcome = ray.get(reference)
    except ray.exceptions.RayError as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        _LOG.warning("%s failed: %s", unit.name, reason)
        if not store.settled(unit):
            store.fail(unit, f"Ray gave it up: {type(error).__name__}: {reason[:200]}")
        return
    if outcome == "stopped":
        _LOG.warning("%s was stopped by a signal on its node; start again.", unit.name)
    elif not store.settled(unit):
        store.fail(unit, f"its node does not share {os.path.abspath(store.directory)}")
