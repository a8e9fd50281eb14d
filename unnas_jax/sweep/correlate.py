"""Scores of the cells of a table of published accuracies, and how the two correlate.

A row is kept for every cell and score as soon as it is computed:

    correlate.json     the settings, with which the same command continues
    scores.jsonl       cell, score, value, seconds
    scores.csv         a row for every cell with all scores, beside its published accuracies
    correlations.csv   Spearman's rho and Kendall's tau with 95% intervals
"""

import csv
import dataclasses
import io
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unnas_jax.analysis import known_correlations, published, statistics
from unnas_jax.analysis.published import Table
from unnas_jax.config import schema
from unnas_jax.config.sections import NetworkSection
from unnas_jax.core import files, logs, reading
from unnas_jax.core.errors import UserError
from unnas_jax.core.journal import Journal
from unnas_jax.spaces import registry as spaces
from unnas_jax.sweep import architectures, scoring
from unnas_jax.sweep.scoring import Judging

_LOG = logging.getLogger("unnas_jax")

_LEAST = 3  # The least number of cells for a correlation.
_SAY_S = 10.0
_ROW = {"cell": str, "name": str, "score": str, "value": float, "seconds": float}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
      name: see `architectures.Architecture`.
      text: as the space writes it.
      row: of the table, from 0.
    """

    name: str
    text: str
    row: int


def choose(table: Table, space: str, *, count: int, skip: int, seed: int) -> list[Cell]:
    """Cells of a table in random order, no two of which are the same architecture.

    Args:
      table: the table of the cells.
      space: the space of the cells.
      count: how many; 0: all.
      skip: the cells at the start of the order to leave out, on which settings were chosen.
      seed: of the order.

    Raises:
      UserError: a text is no cell, or there are not so many cells.
    """
    found: dict[str, Cell] = {}
    again = 0
    for row in np.random.default_rng(seed).permutation(len(table.cells)).tolist():
        if count and len(found) == skip + count:
            break
        cell = published.cell_of(table, row, space)
        name = architectures.named(space, cell).name
        again += name in found
        found.setdefault(name, Cell(name, str(cell), row))
    if len(found) < skip + max(count, 1):
        raise UserError(
            f"{table.path}: has {len(found):,} different cells; give a smaller --count or --skip"
        )
    if again:
        _LOG.info("Passed over %d rows of cells that compute the same as earlier ones.", again)
    return list(found.values())[skip:]


class Rows:
    """The computed values by cell and score, in a file that only grows."""

    def __init__(self, path: str) -> None:
        self._journal = Journal(path, _ROW)
        self.values = {
            (row["name"], row["score"]): float(row["value"]) for row in self._journal.rows
        }

    def add(self, cell: Cell, score: str, value: float, seconds: float) -> None:
        """Keeps a value."""
        row: dict[str, Any] = {"cell": cell.text, "name": cell.name, "score": score}
        self._journal.add(row | {"value": value, "seconds": round(seconds, 3)})
        self.values[cell.name, score] = float(value)


def keep_settings(workdir: str, settings: Mapping[str, Any]) -> None:
    """Writes the settings of a workdir; `UserError` if it has others."""
    path = os.path.join(workdir, "correlate.json")
    if not os.path.exists(path):
        files.write_json(path, dict(settings))
        return
    before = reading.document(path, {str: object}, remedy="give another --workdir")
    # More scores, or cells, may be asked for later; the step is known where the supernet was read.
    free = ("scores", "count", *({"supernet_step"} - set(settings)))
    before = {"supernet": "", **before}
    lines = schema.difference(
        {key: value for key, value in before.items() if key not in free},
        {key: value for key, value in settings.items() if key not in free},
    )
    if lines:
        raise UserError(
            f"workdir {workdir}: holds scores with other settings ({lines[0]}); give the same, or "
            "another --workdir"
        )


def compute(
    cells: Sequence[Cell], scores: Sequence[str], rows: Rows, judging: Judging, workers: int = 1
) -> None:
    """Computes what is missing, and says how long it will take.

    Args:
      cells: to be scored.
      scores: by name.
      rows: where values are kept, in the order of cells and scores, whatever the workers.
      judging: what values depend on besides.
      workers: processes, see `scoring.values`; 1: this one alone.

    Raises:
      UserError: a score cannot judge the cells.
    """
    left = [
        (cell, score) for cell in cells for score in scores if (cell.name, score) not in rows.values
    ]
    _LOG.info(
        "%d cells, scores %s: %d values to compute, %d are there.",
        len(cells),
        ", ".join(scores),
        len(left),
        len(cells) * len(scores) - len(left),
    )
    if not left:
        return
    first = judging.config(left[0][0].text)
    section = NetworkSection.of(first["network"])
    spaces.of_section(section).validate(section)
    asked = [(cell.text, score) for cell, score in left]
    begun = said = time.monotonic()
    for done, ((cell, score), found) in enumerate(
        zip(left, scoring.values(judging, asked, workers), strict=True), 1
    ):
        rows.add(cell, score, *found)
        now = time.monotonic()
        if now - said > _SAY_S or done == len(left):
            said = now
            ahead = (now - begun) / done * (len(left) - done)
            _LOG.info("%d of %d values, %s left", done, len(left), logs.duration(ahead))


@dataclasses.dataclass(frozen=True)
class Result:
    """How a score and a column correlate.

    Attributes:
      score: its name.
      column: of the table.
      rho, tau: Spearman's and Kendall's correlation, with their intervals.
      published: Spearman's rho that others found, with its source; None if none is known.
    """

    score: str
    column: str
    rho: statistics.Correlation
    tau: statistics.Correlation
    published: tuple[float, str] | None

    def __str__(self) -> str:
        """A line of a table."""
        known = ""
        if self.published:
            value, source = self.published
            known = f"   published {value:+.3f} ({source})"
        return (
            f"{self.score:14} {self.column:22} {self.rho.count:6} cells   rho {_shown(self.rho)}   "
            f"tau {_shown(self.tau)}{known}"
        )


def _shown(found: statistics.Correlation) -> str:
    if math.isnan(found.rho):
        return "undefined"
    return f"{found.rho:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def correlations(
    table: Table, cells: Sequence[Cell], scores: Sequence[str], rows: Rows, space: str
) -> list[Result]:
    """The correlations of every score with every column, over the cells that have both."""
    found = []
    for column, accuracies in table.columns.items():
        for score in scores:
            pairs = [
                (rows.values[cell.name, score], accuracies[cell.row])
                for cell in cells
                if (cell.name, score) in rows.values and not math.isnan(accuracies[cell.row])
            ]
            if len(pairs) < _LEAST:
                continue
            x, y = np.array(pairs).T
            rho, tau = statistics.spearman(x, y), statistics.kendall(x, y)
            known = known_correlations.published(space, column, score)
            found.append(Result(score, column, rho, tau, known))
    return found


def scores_csv(table: Table, cells: Sequence[Cell], scores: Sequence[str], rows: Rows) -> str:
    """A row for every cell that has all scores, in the order in which cells were drawn."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["name", "cell", *table.columns, *scores])
    for cell in cells:
        if all((cell.name, score) in rows.values for score in scores):
            known = [values[cell.row] for values in table.columns.values()]
            own = [f"{rows.values[cell.name, score]:.9g}" for score in scores]
            writer.writerow([cell.name, cell.text, *known, *own])
    return buffer.getvalue()


def correlations_csv(results: Sequence[Result]) -> str:
    """The correlations as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header = "score column cells rho rho_low rho_high tau tau_low tau_high published source"
    writer.writerow(header.split())
    for one in results:
        numbers = [
            f"{value:.4f}"
            for found in (one.rho, one.tau)
            for value in (found.rho, found.low, found.high)
        ]
        writer.writerow(
            [one.score, one.column, one.rho.count, *numbers, *(one.published or ("", ""))]
        )
    return buffer.getvalue()
