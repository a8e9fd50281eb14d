"""What a unit of a sweep does: the trainings, or a score, of an architecture on a task."""

import dataclasses
import functools
import hashlib
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from unnas_jax.analysis import result_files
from unnas_jax.config.schema import TrainConfig
from unnas_jax.config.sections import DatasetSection
from unnas_jax.core import compilation
from unnas_jax.data import open_dataset
from unnas_jax.learning import rows
from unnas_jax.runs import together
from unnas_jax.runs.train import train, train_cells
from unnas_jax.sweep.scores import batches, shared, subjects
from unnas_jax.sweep.scores import registry as scores

SCHEMA = "unnas_jax.unit/1"

_COUNTS = ("parameters", "multiply_adds")

_SAVE_SECONDS = 600.0  # Seconds of work that a unit loses at most when its worker dies.


def best(curve: Sequence[Mapping[str, Any]]) -> list[float]:
    """For each seed, the best of its values over the evaluations of a curve."""
    return np.max([row["values"] for row in curve], axis=0).tolist()


def _of_training(
    task: Mapping[str, Any],
    result: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]],
    seconds: float,
    compiled: compilation.Compilation,
) -> dict[str, Any]:
    """The result of a unit from that of its trainings and its values by epoch."""
    values, network = best(curve), task["config"]["network"]
    facts = ("dataset", "task", "metric", "seeds", "parameters", "multiply_adds", "step", "chance")
    return {
        "schema": SCHEMA,
        "architecture": task["architecture"],
        "space": network["space"],
        "cell": network["genotype"],
        **{key: result[key] for key in facts},
        "warnings": result["warnings"],
        "accuracy": float(np.mean(values)),
        "values": values,
        "curve": curve,
        "seconds": seconds,
        "compile": dataclasses.asdict(compiled),
        "finished_at": time.time(),
        "host": socket.gethostname(),
    }


def _evaluations(place: str) -> list[dict[str, Any]]:
    """The epochs and values of all evaluations of the trainings in a directory."""
    found, _ = rows.read(os.path.join(place, "metrics.jsonl"))
    sound = [row for _, row in found if row["kind"] == "validation" and rows.is_sound(row)]
    return [{"epoch": row["epoch"], "values": row["values"]} for row in sound]


def train_unit(task: Mapping[str, Any], scratch: str) -> dict[str, Any] | None:
    """Trains one architecture on one task with all its seeds.

    Args:
      task: `config`, of the trainings, as a dict; `architecture`, its name; `program`, see
        `unnas_jax.config.schema.Sweep`.
      scratch: the directory of the trainings, which continue there.

    Returns:
      The unit's result: `accuracy` is the mean over seeds of `values`, the best over the epochs
      of the task's metric on the held-out images; `curve` has all of them. `seconds` and `compile`
      are of the last start alone. None if a signal stopped it.
    """
    start, config = time.monotonic(), ml_collections.ConfigDict(task["config"])
    shared = together.is_shared(task["program"], config.to_dict())
    if shared:  # Whose checkpoints are others than those of a program of one's own.
        scratch = os.path.join(scratch, "shared")
    with compilation.measured() as compiled:
        result = train(config, scratch, save_seconds=_SAVE_SECONDS, shared=shared)
    if not result.get("finished"):
        return None
    curve = _evaluations(scratch)
    return _of_training(task, result, curve, time.monotonic() - start, compiled)


def _in_turn(
    tasks: Sequence[Mapping[str, Any]], scratches: Sequence[str]
) -> list[dict[str, Any]] | None:
    found = []
    for task, scratch in zip(tasks, scratches, strict=True):
        result = train_unit(task, scratch)
        if result is None:
            return None
        found.append(result)
    return found


def train_units(
    tasks: Sequence[Mapping[str, Any]], scratches: Sequence[str]
) -> list[dict[str, Any]] | None:
    """Trains several architectures on one task, all in one program; in turn if that cannot be.

    Args:
      tasks: of `train_unit`, their cells of one kind.
      scratches: the first one's has the trainings, which continue there if they are the same.

    Returns:
      The units' results; each one's seconds are its share of all. None if a signal stopped them.
    """
    start, count = time.monotonic(), len(tasks)
    config = ml_collections.ConfigDict(tasks[0]["config"])
    if not together.is_suited(config.to_dict()):
        return _in_turn(tasks, scratches)
    cells = [task["config"]["network"]["genotype"] for task in tasks]
    digest = hashlib.sha256("\n".join(cells).encode()).hexdigest()[:12]
    place = os.path.join(scratches[0], f"together_{digest}")
    with compilation.measured() as compiled:
        results = train_cells(config, cells, place, save_seconds=_SAVE_SECONDS)
    if not all(result.get("finished") for result in results):
        return None
    evaluations = _evaluations(place)
    seconds = (time.monotonic() - start) / count
    share = dataclasses.replace(compiled, seconds=compiled.seconds / count)
    return [
        _of_training(
            task,
            result,
            [{**row, "values": row["values"][k::count]} for row in evaluations],
            seconds,
            share,
        )
        for k, (task, result) in enumerate(zip(tasks, results, strict=True))
    ]


@functools.lru_cache(maxsize=2)
def _batch(section: DatasetSection, count: int, side: int, seed: int) -> scores.Batch:
    return batches.of_dataset(open_dataset(section), count, side, seed)


def score_unit(task: Mapping[str, Any]) -> dict[str, Any]:
    """Scores one architecture with all its seeds.

    Args:
      task: `config`, of a training, as a dict; `architecture`, its name; `score`, that of the
        score; `images`, how many it looks at; `supernet`, whose weights it may share.

    Returns:
      The unit's result, as of a training; `values` are the score by seed, `metric` is "score".
    """
    start, config = time.monotonic(), TrainConfig.of(task["config"])
    seeds = list(range(config.seed, config.seed + config.seeds))
    with compilation.measured() as compiled:
        # All architectures see the same images.
        batch = _batch(config.dataset, task["images"], config.input.crop, config.seed)
        supernet = None
        if scores.SCORES[task["score"]].needs_supernet:
            supernet = shared.supernet(task["supernet"], config.network.space)
        values = [
            scores.value(task["score"], subjects.subject(config, batch, seed, supernet))
            for seed in seeds
        ]
        subject = subjects.subject(config, batch, seeds[0])
        counts = {name: int(scores.value(name, subject)) for name in _COUNTS}
    return {
        "schema": SCHEMA,
        "architecture": task["architecture"],
        "space": config.network.space,
        "cell": config.network.genotype,
        "dataset": config.dataset.name,
        "task": task["score"],
        "metric": result_files.SCORE,
        "seeds": seeds,
        **counts,
        "step": 0,
        "chance": None,
        "warnings": [],
        "accuracy": float(np.mean(values)),
        "values": values,
        "curve": [],
        "seconds": time.monotonic() - start,
        "compile": dataclasses.asdict(compiled),
        "finished_at": time.time(),
        "host": socket.gethostname(),
    }


def do_unit(task: Mapping[str, Any], scratch: str) -> dict[str, Any] | None:
    """Scores or trains one architecture; see `score_unit` and `train_unit`."""
    return score_unit(task) if "score" in task else train_unit(task, scratch)
