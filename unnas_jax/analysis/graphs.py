"""Cells as graphs, as pictures and tables show them: which operation leads from where to where."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts.candidates import Candidates
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.nasbench201 import spec as nasbench201
from unnas_jax.spaces.nasbench201.mixed_supernet import KIND
from unnas_jax.spaces.nasbench201.spec import Spec

Drawable: TypeAlias = Genotype | Spec
"""The cells that can be drawn."""

Softmax: TypeAlias = Mapping[str, Sequence[Sequence[float]]]
"""`alphas_softmax` of a `genotype.json`: by kind of cell, (edges, operations)."""


@dataclasses.dataclass(frozen=True)
class Graph:
    """A cell.

    Attributes:
      title: what it is called.
      states: the names of its states, in the order in which they are computed.
      labels: the same for pictures.
      inputs: how many of the states, the first ones, are its inputs.
      edges: (operation, source state, target state), by target.
      weights: of every edge's operation in the search; None where it is not known.
      choices: the most operations that an edge had in the search.
      concat: the states that its output concatenates; none if the last state is the output.
    """

    title: str
    states: Sequence[str]
    labels: Sequence[str]
    inputs: int
    edges: Sequence[tuple[str, int, int]]
    weights: Sequence[float | None]
    choices: int
    concat: Sequence[int]


def of_cells(
    cells: Drawable, softmax: Softmax | None = None, operations: Candidates | None = None
) -> list[Graph]:
    """The graphs of all kinds of cell.

    Args:
      cells: of any number of nodes and any operations.
      softmax: the weights of operations in the search; None: not known.
      operations: of every edge in the search; None: those of the space.

    Raises:
      UserError: the weights are of another cell.
    """
    if isinstance(cells, Spec):
        return [_of_spec(cells, softmax)]
    titles = {"normal": "Normal cell", "reduce": "Reduction cell"}
    return [_of_kind(cells, kind, title, softmax, operations) for kind, title in titles.items()]


def _of_kind(
    cells: Genotype,
    kind: str,
    title: str,
    softmax: Softmax | None,
    operations: Candidates | None,
) -> Graph:
    pairs, concat = getattr(cells, kind), getattr(cells, f"{kind}_concat")
    nodes = len(pairs) // 2
    names = (operations or candidates.everywhere(nodes))[kind]
    weights = candidates.chosen_weights(pairs, softmax[kind] if softmax else None, names)
    return Graph(
        title=title,
        states=("cₖ₋₂", "cₖ₋₁", *(f"node {node}" for node in range(nodes))),
        labels=("$c_{k-2}$", "$c_{k-1}$", *map(str, range(nodes))),
        inputs=2,
        edges=[(name, source, k // 2 + 2) for k, (name, source) in enumerate(pairs)],
        weights=weights,
        choices=max(map(len, names)),
        concat=concat,
    )


def _of_spec(cell: Spec, softmax: Softmax | None) -> Graph:
    numbers = cell.numbers()
    weights: list[float | None] = [None] * len(numbers)
    if softmax is not None:
        try:
            for row in softmax[KIND]:
                if len(row) != len(nasbench201.OPERATIONS):
                    raise ValueError(f"{len(row)} weights on an edge")
            weights = [
                float(row[number]) for row, number in zip(softmax[KIND], numbers, strict=True)
            ]
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"cell: alphas_softmax does not fit it ({error}); remove it or write it anew"
            ) from error
    return Graph(
        title="Cell",
        states=[f"node {node}" for node in range(nasbench201.NODES)],
        labels=list(map(str, range(nasbench201.NODES))),
        inputs=1,
        edges=[
            (name, *edge) for name, edge in zip(cell.operations, nasbench201.EDGES, strict=True)
        ],
        weights=weights,
        choices=len(nasbench201.OPERATIONS),
        concat=(),
    )


def rows(graphs: Sequence[Graph]) -> tuple[list[str], list[tuple[bool, tuple[Any, ...]]]]:
    """A table of graphs side by side.

    Returns:
      Its head; its rows, each with whether it is the first of a node.
    """
    head = ["", *(word for graph in graphs for word in (graph.title, "operation", "weight"))]
    found: list[tuple[bool, tuple[Any, ...]]] = []
    for node in range(max(len(graph.states) - graph.inputs for graph in graphs)):
        columns = [_entering(graph, node) for graph in graphs]
        names = [g.states[g.inputs + node] for g in graphs if g.inputs + node < len(g.states)]
        for number in range(max(map(len, columns))):
            cells = [column[number] if number < len(column) else ("", "", "") for column in columns]
            first = number == 0
            found.append((first, (names[0] if first else "", *(c for row in cells for c in row))))
    if any(graph.concat for graph in graphs):
        outputs = [
            (", ".join(graph.states[s].removeprefix("node ") for s in graph.concat), "concat", "")
            for graph in graphs
        ]
        found.append((True, ("output", *(c for row in outputs for c in row))))
    return head, found


def _entering(graph: Graph, node: int) -> list[tuple[str, str, str]]:
    """What enters a node: the state before, the operation, its weight."""
    return [
        (graph.states[source], operation, "" if weight is None else f"{weight:.3f}")
        for (operation, source, target), weight in zip(graph.edges, graph.weights, strict=True)
        if target == graph.inputs + node
    ]
