"""Published results as rows of accuracies: tables of benchmarks, summaries of the PyTorch release.

Tables are those of `analysis.published`. The names of their columns tell what they measure, see
`COLUMNS`; columns of other names are tasks of their own, such as scores. A table's cells are of the
space that reads the first one, or else of a space that has the name of the file.

The summaries of the release (its `unnas_summaries.zip`) lie at SPACE/DATASET/TASK/SEED/, each a
`sweep_summary.json` with `job_summaries`: the net (for DARTS its genotype), `job_id`, and the error
in percent on held-out images, the least (`min_test_top1`) or a curve over epochs (`test_top1`).
"""

import collections
import logging
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from unnas_jax.analysis import published
from unnas_jax.core import reading
from unnas_jax.core.errors import UserError
from unnas_jax.spaces import names, registry

_LOG = logging.getLogger("unnas_jax")

Row = tuple[tuple[str, str, str], str, int, float]

SUMMARY = "sweep_summary.json"

COLUMNS: dict[str, tuple[str, str]] = {
    # NAS-Bench-101 (Ying et al., 2019) and the paper's runs of its cells.
    "cifar10": ("cifar10", "classification"),
    "cifar10_accuracy": ("cifar10", "classification"),
    "imagenet": ("imagenet2012", "classification"),
    "imagenet_top1": ("imagenet2012", "classification"),
    "imagenet_top1_percent": ("imagenet2012", "classification"),
    # NAS-Bench-201 (Dong and Yang, 2020).
    "cifar10valid": ("cifar10", "classification"),
    "cifar100": ("cifar100", "classification"),
    "imagenet16": ("imagenet16", "classification"),
    # TransNAS-Bench-101 (Duan et al., 2021), all on Taskonomy.
    "class_object": ("objects", "classification"),
    "class_scene": ("scenes", "classification"),
    "segmentsemantic": ("taskonomy", "segmentation"),
    "jigsaw": ("taskonomy", "jigsaw"),
    "autoencoder": ("taskonomy", "autoencoder"),
    "normal": ("taskonomy", "normal"),
    "room_layout": ("taskonomy", "room_layout"),
}
"""The dataset and the task of columns that are known by name."""

EXPLAINED = ("masked", "regression")
"""Tasks whose results are the share of the squares that is explained: a rate, but no accuracy."""

RATES = (
    "classification",
    "segmentation",
    "rotation",
    "colorization",
    "jigsaw",
    "random_labels",
    "contrastive",
    *EXPLAINED,
)
"""Tasks whose results are shares, from 0 to 1, or in percent in tables; others have any size.

Of all tasks, and of scores, more is better.
"""

UNTRAINED = "scores"
"""The dataset of columns that are not known."""

_SPACES = {"darts": "darts", "nas_bench": "nasbench101", "nasbench201": "nasbench201"}
_DATASETS = {"imagenet": "imagenet2012"}
_TASKS = {
    "cls": "classification",
    "rot": "rotation",
    "col": "colorization",
    "jig": "jigsaw",
    "seg": "segmentation",
}
_LEAST, _CURVES = "min_test_top1", ("test_top1", "test_ep_top1", "test_epoch_top1")


def rows_of_table(path: pathlib.Path) -> list[Row]:
    """The results in a table; those of isomorphic cells are averaged.

    Raises:
      UserError: it cannot be read, or a share is beyond 100%.
    """
    table = published.read(path)
    space = names.space_of(table.cells[0])
    known = space or path.stem
    texts = [
        table.cells[k]
        if space is None
        else names.of_cell(space, published.cell_of(table, k, space))
        for k in range(len(table.cells))
    ]
    count = len(set(texts))
    if count < len(texts):
        _LOG.info("%s: %d rows are %d architectures: averaged.", path, len(texts), count)
    rows: list[Row] = []
    for column, values in table.columns.items():
        dataset, task = COLUMNS.get(column, (UNTRAINED, column))
        scale = _scale(path, column, task, values)
        sums: dict[str, list[float]] = collections.defaultdict(list)
        for name, value in zip(texts, values, strict=True):
            if not math.isnan(value):
                sums[name].append(value * scale)
        key = (known, dataset, task)
        rows += [(key, name, 0, float(np.mean(found))) for name, found in sums.items()]
    return rows


def _scale(path: pathlib.Path, column: str, task: str, values: Sequence[float]) -> float:
    """The factor that makes shares of percents."""
    if task not in RATES:
        return 1.0
    low, high = np.nanmin(values), np.nanmax(values)
    if low < 0 or high > 100:
        raise UserError(f"{path}: the column {column} has {low:g} to {high:g}: no accuracies")
    return 0.01 if high > 1 else 1.0


def summaries(directory: pathlib.Path) -> list[pathlib.Path]:
    """The summaries of the release below a folder."""
    return sorted(directory.rglob(SUMMARY))


def rows_of_summary(path: pathlib.Path) -> list[Row]:
    """The results of a summary; jobs without one are left out, and counted in a line.

    Raises:
      UserError: it cannot be read, or its folders are not named as above.
    """
    parts = path.parent.parts[-4:]
    if len(parts) < 4 or parts[0] not in _SPACES or parts[2] not in _TASKS:
        raise UserError(
            f"{path}: give summaries their folders, SPACE/DATASET/TASK/SEED with a space of "
            f"{', '.join(_SPACES)} and a task of {', '.join(_TASKS)}"
        )
    if not parts[3].isdecimal():
        raise UserError(f"{path}: its folder {parts[3]!r} is no seed; use 1, 2, ...")
    space, dataset, task = _SPACES[parts[0]], _DATASETS.get(parts[1], parts[1]), _TASKS[parts[2]]
    document = reading.document(
        path, {"job_summaries": [{str: object}], str: object}, limit=reading.LARGE
    )
    found: dict[str, list[float]] = collections.defaultdict(list)
    jobs = document["job_summaries"]
    for number, job in enumerate(jobs):
        error = _error(path, number, job)
        if error is not None:
            found[_name(path, number, job, space)].append(1 - error / 100)
    rest = sum(_error(path, number, job) is None for number, job in enumerate(jobs))
    if rest:
        _LOG.info("%s: %d of %d jobs have no result.", path, rest, len(jobs))
    key = (space, dataset, task)
    return [(key, name, int(parts[3]), float(np.mean(values))) for name, values in found.items()]


def _error(path: pathlib.Path, number: int, job: Mapping[str, Any]) -> float | None:
    """The least error of a job over its epochs, in percent; None if it has none."""
    values = [
        float(value)
        for key in (_LEAST, *_CURVES)
        for value in _numbers(job.get(key))
        if math.isfinite(value)
    ]
    if not values:
        return None
    if not 0 <= min(values) <= 100:
        raise UserError(f"{path}, job {number + 1}: the error {min(values):g} is no percentage")
    return min(values)


def _numbers(value: Any) -> Iterator[float]:
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, int | float) and not isinstance(each, bool):
            yield each


def _name(path: pathlib.Path, number: int, job: Mapping[str, Any], space: str) -> str:
    """The name of a job's architecture; its `job_id` where the net is not told."""
    net = job.get("net")
    net = net if isinstance(net, dict) else {}
    cell = net.get(
        "genotype", net.get("cell", net if {"matrix", "operations"} <= net.keys() else None)
    )
    try:
        if isinstance(cell, dict):
            return names.of_cell(space, registry.SPACES[space].from_dict(cell))
        if isinstance(cell, str):
            return names.of_cell(space, registry.SPACES[space].resolve(cell))
    except UserError as error:
        raise UserError(f"{path}, job {number + 1}: {error}") from error
    if "job_id" not in job:
        raise UserError(f"{path}, job {number + 1}: has neither a net's cell nor a job_id")
    return f"{space}-job-{os.path.basename(str(job['job_id']))}"
