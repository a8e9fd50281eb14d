"""Cells of NAS-Bench-101: labelled graphs, their pruning, identity and text."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from unnas_jax.core import reading
from unnas_jax.core.errors import UserError

OPERATIONS = ("conv1x1", "conv3x3", "maxpool3x3")
"""What a vertex between input and output computes, in the order of the enumeration's labels."""

MAX_VERTICES = 7
MAX_EDGES = 9
"""The limits of the benchmark (Ying et al., 2019), on the pruned cell."""

SPACE = "nasbench101"

_MOST_ROWS = 64  # Rows of a matrix before it is pruned.

# The benchmark's own names.
_LONG_NAMES = {f"{operation}-bn-relu": operation for operation in OPERATIONS[:2]}

Matrix = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Spec:
    """A valid cell. The benchmark's names (`conv3x3-bn-relu`) become the short ones.

    The order of the vertices matters little: if channels cannot be shared equally, the first
    vertices take the remainder, so that isomorphic cells can differ by a few parameters.

    Attributes:
      matrix: adjacency, matrix[i][j] = 1 for an edge from vertex i to j > i; vertex 0 is the
        input, the last one the output.
      operations: of all vertices: `input`, those between (of `OPERATIONS`), `output`.
    """

    matrix: Matrix
    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        short = tuple(_LONG_NAMES.get(name, name) for name in self.operations)
        object.__setattr__(self, "operations", short)
        self.validate()

    def validate(self) -> None:
        """Raises `UserError` for anything that is not a cell of the space; called when made."""
        operations, count = self.operations, len(self.operations)
        if count > _MOST_ROWS:
            raise UserError(
                f"cell: {count} vertices; NAS-Bench-101 has at most {MAX_VERTICES} on paths from "
                "the input to the output; leave out the others"
            )
        if len(self.matrix) != count:
            raise UserError(
                f"cell: the matrix has {len(self.matrix)} rows, but {count} operations are given; "
                "give one row and one operation for every vertex, input and output included"
            )
        if count < 2 or operations[0] != "input" or operations[-1] != "output":
            raise UserError(
                f"cell: the operations are {', '.join(operations)[:200] or 'empty'}; the first "
                "must be 'input' and the last 'output'"
            )
        for vertex, name in enumerate(operations[1:-1], start=1):
            if name not in OPERATIONS:
                raise UserError(
                    f"cell: vertex {vertex} has the operation {reading.shown(name)}; use one of "
                    f"{', '.join(OPERATIONS)}"
                )
        for source, row in enumerate(self.matrix):
            if len(row) != count:
                raise UserError(
                    f"cell: row {source} of the matrix has {len(row)} entries; give {count}, one "
                    "for every vertex"
                )
            for target, entry in enumerate(row):
                if entry not in (0, 1):
                    raise UserError(
                        f"cell: the matrix has {entry!r} in row {source}, column {target}; "
                        "use 0 or 1"
                    )
                if entry and target <= source:
                    raise UserError(
                        f"cell: the matrix has an edge from vertex {source} to {target}; order the "
                        "vertices so that every edge leads to a later one"
                    )
        kept = self._on_paths()
        if not kept:
            raise UserError("cell: no path leads from the input to the output; add edges")
        edges = sum(self.matrix[a][b] for a in kept for b in kept)
        for name, number, limit in (
            ("vertices", len(kept), MAX_VERTICES),
            ("edges", edges, MAX_EDGES),
        ):
            if number > limit:
                raise UserError(
                    f"cell: {number} {name} are on paths from the input to the output; "
                    f"NAS-Bench-101 has at most {limit}"
                )

    def _on_paths(self) -> list[int]:
        """The vertices on paths from input to output, in order; empty if there is no path."""
        last = len(self.matrix) - 1
        forward, backward = {0}, {last}
        for vertex in range(1, last + 1):
            if any(self.matrix[source][vertex] for source in forward):
                forward.add(vertex)
        for vertex in range(last - 1, -1, -1):
            if any(self.matrix[vertex][target] for target in backward):
                backward.add(vertex)
        return sorted(forward & backward)

    def pruned(self) -> "Spec":
        """The cell without the vertices that are on no path from input to output."""
        kept = self._on_paths()
        return Spec(
            tuple(tuple(self.matrix[a][b] for b in kept) for a in kept),
            tuple(self.operations[vertex] for vertex in kept),
        )

    def as_dict(self) -> dict[str, Any]:
        """The cell in the types of JSON."""
        return {
            "space": SPACE,
            "matrix": [list(row) for row in self.matrix],
            "operations": list(self.operations),
        }

    def __str__(self) -> str:
        """Rows of the matrix, then the operations between input and output; see `parse`."""
        rows = "-".join("".join(map(str, row)) for row in self.matrix)
        return f"{rows}:{','.join(self.operations[1:-1])}"


def from_dict(value: Mapping[str, Any]) -> Spec:
    """The inverse of `Spec.as_dict`, the key `space` may be missing.

    Raises:
      UserError: it is no cell, or one of another space.
    """
    space = value.get("space", SPACE) if isinstance(value, Mapping) else None
    if space != SPACE:
        raise UserError(f'cell: its space is {reading.shown(space)}; expected "space": "{SPACE}"')
    try:
        matrix, operations = value["matrix"], value["operations"]
        for row in matrix:
            if any(type(entry) is not int for entry in row):  # True or 0.5 are no edges.
                raise ValueError("an entry of the matrix is neither 0 nor 1")
        if any(not isinstance(name, str) for name in operations):
            raise ValueError("an operation is no name")
        return Spec(tuple(tuple(row) for row in matrix), tuple(operations))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            "cell: expected the keys matrix, with rows of 0 and 1, and operations, with names "
            f"({type(error).__name__}: {error})"
        ) from error


def parse(text: str) -> Spec:
    """The cell of a text such as `0110-0001-0001-0000:conv3x3,maxpool3x3`.

    Before the colon the rows of the matrix, after it the operations of the vertices between input
    and output. It is what `str` gives.

    Raises:
      UserError: it is no such text, or no cell of the space.
    """
    rows, colon, names = text.strip().partition(":")
    matrix = rows.split("-")
    if not colon or any(set(row) - {"0", "1"} or not row for row in matrix):
        raise UserError(
            f"cell {reading.shown(text)}: expected rows of 0 and 1 and the operations between "
            "input and output, as in 0110-0001-0001-0000:conv3x3,maxpool3x3"
        )
    between = tuple(name.strip() for name in names.split(",")) if names.strip() else ()
    return Spec(
        tuple(tuple(int(entry) for entry in row) for row in matrix), ("input", *between, "output")
    )


def pairs(vertices: int) -> list[tuple[int, int]]:
    """All possible edges of so many vertices, row by row: the order of a graph's bits."""
    return list(itertools.combinations(range(vertices), 2))


def relabellings(vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """All ways to rename the vertices between input and output.

    A graph is the number whose binary digits are its possible edges in the order of `pairs`, the
    first one the most significant.

    Returns:
      names: (relabellings, vertices), the new name of every vertex; the first one renames nothing.
      weights: float64 (pairs, relabellings). The product of graphs' digits with it is what their
        numbers become, or more than any number if an edge would lead to an earlier vertex.
    """
    inner = itertools.permutations(range(1, vertices - 1))
    names = np.array([(0, *order, vertices - 1) for order in inner], np.int64)
    edges = pairs(vertices)
    place = {edge: len(edges) - 1 - k for k, edge in enumerate(edges)}
    # Sums of at most 21 of these are exact in float64.
    impossible = 2.0 ** (len(edges) + 8)
    weights = [
        [2.0 ** place[row[a], row[b]] if row[a] < row[b] else impossible for row in names.tolist()]
        for a, b in edges
    ]
    return names, np.array(weights)


def canonical(spec: Spec) -> Spec:
    """The pruned cell with its vertices in the one order that all isomorphic cells share.

    It is the order, of those in which edges lead to later vertices, with the smallest number of
    the graph (see `relabellings`) and, among those, the first operations in the order of
    `OPERATIONS`. Two cells are isomorphic exactly if this is the same for both.
    """
    spec = spec.pruned()
    count = len(spec.matrix)
    names, weights = relabellings(count)
    digits = np.array([spec.matrix[a][b] for a, b in pairs(count)], np.float64)
    numbers = digits @ weights
    candidates: list[tuple[list[int], list[int]]] = []
    for row in names[numbers == numbers.min()].tolist():
        old = sorted(range(count), key=row.__getitem__)
        labels = [OPERATIONS.index(spec.operations[vertex]) for vertex in old[1:-1]]
        candidates.append((labels, old))
    _, old = min(candidates)
    return Spec(
        tuple(tuple(spec.matrix[a][b] for b in old) for a in old),
        tuple(spec.operations[vertex] for vertex in old),
    )


def identity(spec: Spec) -> str:
    """The same text for isomorphic cells, and only for those: that of the canonical cell."""
    return str(canonical(spec))
