"""The table of cells' graphs."""

from collections.abc import Sequence
from typing import Any

from unnas_jax.spaces.graph import Graph


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
