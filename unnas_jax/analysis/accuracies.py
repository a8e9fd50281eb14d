"""Accuracies of a sample of architectures: from sweeps, and from files of other tools.

Published results are read by `analysis.sources`; any other CSV needs these columns:

    architecture   a name that tells it apart, the same in all files
    task           classification, rotation, colorization, jigsaw, or another name
    dataset        where the task was learned
    seed           of the training; several rows of one architecture, task and dataset are averaged
    accuracy       on held-out images, from 0 to 1; of scores any number, higher is better
    space          optional: the search space, such as `darts` or `nasbench101`
"""

import csv
import io
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from unnas_jax.analysis import result_files, sources
from unnas_jax.core import reading
from unnas_jax.core.errors import UserError

COLUMNS = ("architecture", "task", "dataset", "seed", "accuracy", "space")

Key = tuple[str, str, str]
"""Space, dataset, task."""

Table = Mapping[Key, Mapping[str, float]]
"""The mean accuracy over seeds of every architecture, by space, dataset and task."""

Row = tuple[Key, str, int, float]
"""The key, the architecture, the seed, the accuracy."""


def _rows_of_sweep(directory: pathlib.Path) -> list[Row]:
    rows = []
    for path in sorted(directory.glob("units/*/*.json")):
        unit = result_files.read_unit(path)
        key = (unit["space"], unit["dataset"], unit["task"])
        for seed, value in zip(unit["seeds"], unit["values"], strict=True):
            rows.append((key, unit["architecture"], seed, float(value)))
    if not rows:
        raise UserError(f"{directory}: holds no finished unit of a sweep")
    return rows


def _rows_of_folder(directory: pathlib.Path) -> list[Row]:
    summaries = sources.summaries(directory)
    if not summaries:
        return _rows_of_sweep(directory)
    return [row for path in summaries for row in sources.rows_of_summary(path)]


def _rows_of_csv(path: pathlib.Path) -> list[Row]:
    try:
        with reading.opened(path, reading.LARGE) as file:
            reader = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""))
            if "task" in (reader.fieldnames or ()):
                return list(_parsed(path, reader))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read it ({reading.reason(error)})") from error
    except (csv.Error, ValueError) as error:
        raise UserError(f"{path}: not a table of comma-separated values ({error})") from error
    return sources.rows_of_table(path)


def _parsed(path: pathlib.Path, reader: csv.DictReader) -> Iterator[Row]:
    """The rows of a CSV; `UserError` if a row is malformed, or if there are none."""
    missing = [name for name in COLUMNS[:-1] if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(
            f"{path}: has no column {', '.join(missing)}; the columns are {', '.join(COLUMNS)}"
        )
    number = 1
    for number, row in enumerate(reader, 2):
        try:
            accuracy, seed = float(row["accuracy"]), int(row["seed"])
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{path}, line {number}: the seed {reading.shown(row['seed'])} or the accuracy "
                f"{reading.shown(row['accuracy'])} is no number"
            ) from error
        rate = row["task"] in sources.RATES
        if not math.isfinite(accuracy) or (rate and not 0 <= accuracy <= 1):
            raise UserError(f"{path}, line {number}: accuracy {accuracy:g}: give it from 0 to 1")
        key = (row.get("space") or "", row["dataset"], row["task"])
        if not all((row["architecture"], row["dataset"], row["task"])):
            raise UserError(f"{path}, line {number}: architecture, task or dataset is empty")
        yield key, row["architecture"], seed, accuracy
    if number == 1:
        raise UserError(f"{path}: has no rows")


def read(paths: Iterable[str | os.PathLike[str]]) -> list[Row]:
    """The accuracies in workdirs of sweeps, finished or not, in tables and published summaries.

    Raises:
      UserError: there is nothing, it cannot be read, or a training is there twice.
    """
    rows: list[Row] = []
    seen: dict[tuple[Key, str, int], pathlib.Path] = {}
    for given in paths:
        path = pathlib.Path(given)
        if not path.exists():
            raise UserError(f"{path}: no such file or directory; give a sweep's workdir or a CSV")
        found = _rows_of_folder(path) if path.is_dir() else _rows_of_csv(path)
        for key, architecture, seed, _ in found:
            if (key, architecture, seed) in seen:
                raise UserError(
                    f"{path}: {architecture} on {key[1]}, {key[2]}, seed {seed} is there twice "
                    f"(also in {seen[key, architecture, seed]}); leave one out"
                )
            seen[key, architecture, seed] = path
        rows += found
    return rows


def table(rows: Sequence[Row]) -> Table:
    """The means over seeds."""
    values: dict[Key, dict[str, list[float]]] = {}
    for key, architecture, _, accuracy in rows:
        values.setdefault(key, {}).setdefault(architecture, []).append(accuracy)
    return {
        key: {name: float(np.mean(numbers)) for name, numbers in of_key.items()}
        for key, of_key in values.items()
    }


def write_csv(rows: Sequence[Row]) -> str:
    """The rows as the CSV that `read` reads."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for (space, dataset, task), architecture, seed, accuracy in sorted(rows):
        writer.writerow((architecture, task, dataset, seed, accuracy, space))
    return buffer.getvalue()
