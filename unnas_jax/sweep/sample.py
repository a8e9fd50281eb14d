"""Sample-based experiments: architectures x tasks, each pair a unit of a sweep, of some seeds.

Trains every architecture of a sample on every task from scratch (paper, section 5), each pair as
one unit of a sweep:

    python main.py --config=configs/sample_darts_photos.py --workdir=DIR
    unnas-jax status DIR
"""

import collections
import dataclasses
import logging
import os
import time
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from unnas_jax.analysis import result_files
from unnas_jax.config import run_config
from unnas_jax.config import schema as config_lib
from unnas_jax.config.schema import SampleConfig
from unnas_jax.core import logs
from unnas_jax.core.errors import UserError
from unnas_jax.data import open_dataset
from unnas_jax.data.workers import refuse_unguarded_main
from unnas_jax.layers import onednn
from unnas_jax.runs import together
from unnas_jax.runs import workdir as workdir_lib
from unnas_jax.spaces import registry as spaces
from unnas_jax.spaces import sharing
from unnas_jax.sweep import architectures, local_engine, unit_work, validation
from unnas_jax.sweep import units as sweep
from unnas_jax.sweep.architectures import Architecture
from unnas_jax.sweep.scores import registry as scores
from unnas_jax.sweep.units import Jointly, Store, Unit

_LOG = logging.getLogger("unnas_jax")


def _task_of_unit(
    config: ml_collections.ConfigDict, architecture: Architecture, task: str
) -> dict[str, Any]:
    score = task in scores.SCORES
    unit = config_lib.of_unit(config, task, architecture.cell, score)
    found = {"architecture": architecture.name, "config": unit.to_dict()}
    if not score:
        return {**found, "program": config.sweep.program}
    settings = {"images": config.scores.images, "supernet": config.scores.supernet}
    return {**found, "score": task, **settings}


def all_units(config: ml_collections.ConfigDict, chosen: Sequence[Architecture]) -> list[Unit]:
    """A unit for every architecture and task, the tasks of an architecture after each other."""
    space = config.training.network.space

    def kind(architecture: Architecture, task: str) -> str:
        if task in scores.SCORES or config.sweep.program == "own":
            return ""
        cells = spaces.SPACES.find(space, "training.network.space").resolve(architecture.cell)
        program = sharing.kind(space, cells)
        return program and f"{task} {program}"

    return [
        Unit(
            f"{architecture.name}/{task}",
            _task_of_unit(config, architecture, task),
            kind(architecture, task),
        )
        for architecture in chosen
        for task in config.tasks
    ]


def _record(config: ml_collections.ConfigDict) -> SampleConfig:
    return SampleConfig.of(config.to_dict())


def architectures_of(config: ml_collections.ConfigDict) -> list[Architecture]:
    """The architectures that a valid config of a sample lists, or draws."""
    given, space = config.sample.architectures, config.training.network.space
    return architectures.read(given, space) if given else architectures.sample(_record(config))


def _architectures(config: ml_collections.ConfigDict, workdir: str) -> list[Architecture]:
    """The architectures in the workdir's architectures.json, or those to be written there."""
    path = os.path.join(workdir, architectures.FILE)
    if os.path.exists(path):
        return architectures.read(path, config.training.network.space)
    return architectures_of(config)


def _keep(chosen: list[Architecture], config: ml_collections.ConfigDict, workdir: str) -> None:
    """Writes architectures.json, if it is not there yet."""
    path, given = os.path.join(workdir, architectures.FILE), config.sample.architectures
    if not os.path.exists(path):
        provenance = {"list": given} if given else {**config.sample.to_dict(), "seed": config.seed}
        space = config.training.network.space
        architectures.write(path, chosen, {"space": space, "drawn": provenance})


@dataclasses.dataclass(frozen=True)
class Status:
    """Where a sweep stands.

    Attributes:
      total: units.
      finished: the results of those that are done.
      running: the units that somebody works on now, with since when (seconds since 1970).
      failed: the reasons of those that failed and that nobody has tried again yet.
    """

    total: int
    finished: list[dict[str, Any]]
    running: dict[str, float]
    failed: dict[str, str]

    @property
    def seconds_left(self) -> float | None:
        """The time left with as many workers as now, at the mean pace so far; None if unknown."""
        if not self.finished or not self.running:
            return None
        left = self.total - len(self.finished) - len(self.failed)
        mean = float(np.mean([result["seconds"] for result in self.finished]))
        return left * mean / len(self.running)

    def lines(self) -> list[str]:
        """Lines to print: a summary, tasks that taught nothing, units."""
        words = [f"{len(self.finished)} of {self.total} units done"]
        words += [f"{len(self.running)} running", f"{len(self.failed)} failed"]
        if self.finished:
            seconds = max(sum(result["seconds"] for result in self.finished), 1e-9)
            networks = sum(len(result["seeds"]) for result in self.finished)
            compiled = sum(result["compile"]["seconds"] for result in self.finished)
            words += [
                f"{3600 * networks / seconds:.1f} networks an hour and worker",
                f"{100 * compiled / seconds:.0f}% of the time compiling",
            ]
        left = self.seconds_left
        if left is not None:
            words.append(f"{logs.duration(left)} left")
        guesses = collections.Counter(u.get("task") for u in self.finished if u.get("warnings"))
        all_of = collections.Counter(u.get("task") for u in self.finished)
        guessing = [
            f"{count} of {all_of[task]} units of {task} are no better than guessing: they rank "
            "nothing"
            for task, count in guesses.items()
        ]
        now = time.time()
        running = [
            f"running {name}, {logs.duration(now - since)}" for name, since in self.running.items()
        ]
        failed = [f"failed {name}: {reason}" for name, reason in self.failed.items()]
        return [", ".join(words), *guessing, *running, *failed]


def status(store: Store, units: Sequence[Unit]) -> Status:
    """Where the units of a sweep stand, from its files; others may be working on it."""
    finished, running, failed = [], {}, {}
    for unit in units:
        if store.finished(unit):
            try:
                finished.append(result_files.read_unit(store.result_path(unit), pace=True))
            except UserError as error:
                failed[unit.name] = str(error)
        elif store.running(unit):
            claim = store.claimed(unit)
            running[unit.name] = claim.since if claim else time.time()
        elif store.failed(unit):
            failed[unit.name] = store.reason(unit)
    return Status(len(units), finished, running, failed)


def status_of(workdir: str) -> Status:
    """Where the sweep in a workdir stands.

    Raises:
      UserError: this is no workdir of a sweep.
    """
    workdir = os.path.expanduser(workdir)
    found = run_config.read(workdir, of="a sweep")
    if found["experiment"] != "sample":
        kind = run_config.KINDS[found["experiment"]]
        raise UserError(f"{workdir}: not the workdir of a sweep, but of {kind}")
    config = ml_collections.ConfigDict(found)
    try:
        validation.validate(config)
    except UserError as error:
        raise UserError(f"{os.path.join(workdir, run_config.FILE)}: {error}") from error
    path = os.path.join(workdir, architectures.FILE)
    if not os.path.exists(path):
        return Status(0, [], {}, {})
    chosen = architectures.read(path, config.training.network.space)
    return status(Store(workdir), all_units(config, chosen))


def sample(config: ml_collections.ConfigDict, workdir: str) -> Status:
    """Trains every architecture on every task, except for units that are finished.

    Args:
      config: see `unnas_jax.config.sample`.
      workdir: gets `architectures.json`, `units/ARCHITECTURE/TASK.json` and what
        `unnas_jax.sweep.units` lists. Shards share it.

    Returns:
      where the sweep stands in the end.

    Raises:
      UserError: bad input, or units failed; their reasons are in `failures/`.
      SystemExit: a signal stopped it; with the status 75, after which launchers start it again.
    """
    refuse_unguarded_main()
    validation.validate(config)
    place = workdir_lib.local(workdir)
    # First: a list that cannot be read must not claim the workdir.
    chosen = _architectures(config, workdir)
    c = _record(config)
    workdir_lib.check_apart(place, c.training.dataset)
    workdir_lib.claim(place, config.to_dict())
    _keep(chosen, config, workdir)
    store, options = Store(workdir), c.sweep
    units = sweep.shard(all_units(config, chosen), options.shard, len(c.tasks))
    for unit in units:
        store.forget_failure(unit)
    _LOG.info(
        "%d architectures, tasks %s; this start (shard %s) has %d units, %d of them done.",
        len(chosen),
        ", ".join(c.tasks),
        options.shard,
        len(units),
        sum(store.finished(unit) for unit in units),
    )

    def report() -> None:
        _LOG.info("%s", status(store, units).lines()[0])

    if all(store.finished(unit) for unit in units):
        ended = True
    elif options.engine == "ray":
        from unnas_jax.sweep import ray_engine

        ended = ray_engine.run(
            store,
            units,
            unit_work.do_unit,
            address=options.address,
            attempts=options.attempts,
            workers_per_device=options.workers_per_device,
            cores_per_worker=options.cores_per_worker,
            report=report,
        )
    else:
        # Opened here: an error is then told once, and only one process prepares a dataset.
        for task in c.tasks:
            open_dataset(
                config_lib.of_unit(config, task, "", task in scores.SCORES).dataset.to_dict()
            )
        platform, count = local_engine.devices()
        onednn.tell(platform, count)
        places = local_engine.slots(
            platform,
            count,
            workers_per_device=options.workers_per_device,
            cores_per_worker=options.cores_per_worker,
        )
        _LOG.info("%d workers; what they print goes to %s/logs.", len(places), workdir)
        most = options.together or together.most(platform)
        ended = local_engine.run(
            store,
            units,
            unit_work.do_unit,
            places,
            attempts=options.attempts,
            report=report,
            jointly=Jointly(unit_work.train_units, most) if most > 1 else None,
        )
    for unit in units:
        store.tidy(unit)
    state = status(store, units)
    report()
    if not ended:
        _LOG.info("Stopped by a signal; the same command continues.")
        raise SystemExit(os.EX_TEMPFAIL)
    if state.failed:
        name, reason = next(iter(state.failed.items()))
        raise UserError(
            f"{len(state.failed)} of {state.total} units failed, the first one is {name}: "
            f"{reason}; the same command tries them again"
        )
    return state
