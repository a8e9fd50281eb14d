"""Tables of published accuracies: a CSV with a cell a row, and a column for each accuracy.

    cell,cifar10valid,cifar100,imagenet16
    "[[3],[3,1],[0,2,4]]",90.1,70.2,44.9

The cells are in the column `cell` or `architecture`, in any text that the space reads; without a
space the texts themselves tell cells apart. Of the other columns those that hold numbers are taken,
but `index`. Accuracies may be from 0 to 1 or in percent; other measures may have any range.
"""

import csv
import dataclasses
import io
import math
import os
from collections.abc import Sequence

from unnas_jax.core import reading
from unnas_jax.core.errors import UserError
from unnas_jax.spaces import registry

CELLS = ("cell", "architecture", "arch")
"""Names of the column that holds the cells; the first one that is there counts."""

_NOT_MEASURES = ("index", "seed")


@dataclasses.dataclass(frozen=True)
class Table:
    """The content of a table.

    Attributes:
      path: of its file.
      cells: the texts, row by row.
      columns: the values of every measure, row by row; NaN where a field is empty.
    """

    path: str
    cells: tuple[str, ...]
    columns: dict[str, tuple[float, ...]]


def _number(text: str | None) -> float:
    if text is None or not text.strip():
        return math.nan
    return float(text)


def read(path: str | os.PathLike[str], wanted: Sequence[str] = ()) -> Table:
    """Reads a table.

    Args:
      path: of a CSV.
      wanted: its columns to take; none: all that hold numbers.

    Raises:
      UserError: there is no such column or no number in it, or the file cannot be read.
    """
    name = os.fspath(path)
    content = reading.user_text(path, "table", reading.LARGE)
    try:
        rows = list(csv.reader(io.StringIO(content, newline=""), strict=True))
    except csv.Error as error:
        raise UserError(f"{name}: not a table of comma-separated values ({error})") from error
    header = [field.strip() for field in rows[0]] if rows else []
    of_cells = next((column for column in CELLS if column in header), None)
    if of_cells is None or len(set(header)) < len(header):
        raise UserError(
            f"{name}: needs one column {' or '.join(CELLS)} with the cells, and one for each "
            "accuracy; its first line names them"
        )
    missing = [column for column in wanted if column not in header]
    if missing:
        raise UserError(f"{name}: has no column {', '.join(missing)}; it has {', '.join(header)}")
    body = [(number, row) for number, row in enumerate(rows[1:], 2) if row]
    for number, row in body:
        if len(row) != len(header):
            raise UserError(
                f"{name}, row {number}: has {len(row)} fields, the first row has {len(header)}"
            )
    if not body:
        raise UserError(f"{name}: has no rows")
    columns = {}
    for place, column in enumerate(header):
        if column == of_cells or column in _NOT_MEASURES or (wanted and column not in wanted):
            continue
        try:
            values = tuple(_number(row[place]) for _, row in body)
        except ValueError as error:
            if column in wanted:
                raise UserError(f"{name}: the column {column} holds no numbers") from error
            continue
        if any(math.isinf(value) for value in values):
            raise UserError(f"{name}: the column {column} has a number that is infinite")
        if not all(math.isnan(value) for value in values):
            columns[column] = values
    if not columns:
        raise UserError(f"{name}: has no column of numbers beside the cells")
    place = header.index(of_cells)
    return Table(name, tuple(row[place].strip() for _, row in body), columns)


def cell_of(table: Table, row: int, space: str) -> registry.Cells:
    """The cell of a row (from 0) as a space reads it; raises `UserError` that names the row."""
    try:
        return registry.SPACES[space].resolve(table.cells[row])
    except UserError as error:
        raise UserError(f"{table.path}, cell {row + 1}: {error}") from error
