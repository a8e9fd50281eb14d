"""Places a cell's states, operations and edges so that nothing covers anything else.

A layered drawing (Sugiyama, Tagawa and Toda, 1981): states stand in columns by their depth, every
operation in the column before the node that it feeds, and an edge that passes a column holds a
place of its own in it. Between columns there are only edges, so no label, node or edge can
overlap another by construction.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import optimize

Item = tuple[str, int, int]
"""("state", state, 0), ("operation", edge, 0), ("output", 0, 0) or ("pass", edge, column)."""

OUTPUT: Item = ("output", 0, 0)
_SWEEPS = 24


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where everything of one cell goes.

    Attributes:
      columns: for every column, left to right, its items from top to bottom.
      y: the centre of every item, downwards, in the unit of the heights; the topmost edge is 0.
      height: the extent of all columns.
      routes: the items that every edge visits: from its source over its operation to its target;
        then for every concatenated state from it to the output.
    """

    columns: list[list[Item]]
    y: dict[Item, float]
    height: float
    routes: list[list[Item]]


def _assign(
    edges: Sequence[tuple[int, int]], concat: Sequence[int]
) -> tuple[dict[Item, int], list[list[Item]]]:
    """The column of every item and the route of every edge."""
    depth: list[int] = []
    for state in range(1 + max(target for _, target in edges)):
        before = [depth[source] for source, target in edges if target == state]
        depth.append(1 + max(before, default=-1))
    column: dict[Item, int] = {("state", s, 0): 2 * d for s, d in enumerate(depth)}
    if concat:
        column[OUTPUT] = 2 * max(depth) + 1
    for k, (_, target) in enumerate(edges):
        column["operation", k, 0] = column["state", target, 0] - 1

    def leg(edge: int, source: Item, target: Item) -> list[Item]:
        between: list[Item] = [("pass", edge, c) for c in range(column[source] + 1, column[target])]
        column.update({item: item[2] for item in between})
        return [source, *between, target]

    routes: list[list[Item]] = []
    for k, (source, target) in enumerate(edges):
        fed: Item = ("state", target, 0)
        routes.append([*leg(k, ("state", source, 0), ("operation", k, 0)), fed])
    for k, state in enumerate(concat, start=len(edges)):
        routes.append(leg(k, ("state", state, 0), OUTPUT))
    return column, routes


def _crossings(left: Mapping[Item, int], right: Mapping[Item, int], links: list) -> int:
    ends = np.array([(left[a], right[b]) for a, b in links])
    if len(ends) < 2:
        return 0
    a, b = (ends[:, None] - ends[None]).transpose(2, 0, 1)
    return int((a * b < 0).sum()) // 2


def _order(columns: list[list[Item]], links: list[list[tuple[Item, Item]]]) -> list[list[Item]]:
    """Orders every column but the first for few crossings: barycentres, then swaps."""

    def places(column: list[Item]) -> dict[Item, int]:
        return {item: i for i, item in enumerate(column)}

    def total(candidate: list[list[Item]]) -> int:
        p = [places(column) for column in candidate]
        return sum(_crossings(p[i], p[i + 1], links[i]) for i in range(len(links)))

    def around(candidate: list[list[Item]], c: int) -> int:
        near = range(max(c - 1, 0), min(c + 1, len(links)))
        return sum(
            _crossings(places(candidate[i]), places(candidate[i + 1]), links[i]) for i in near
        )

    columns = [list(column) for column in columns]
    best, fewest = [list(column) for column in columns], total(columns)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        indices = range(1, len(columns)) if forward else range(len(columns) - 2, 0, -1)
        for c in indices:
            other = places(columns[c - 1 if forward else c + 1])
            joined = [(b, a) for a, b in links[c - 1]] if forward else links[c]
            mean = {
                item: float(np.mean([other[b] for a, b in joined if a == item] or [i]))
                for i, item in enumerate(columns[c])
            }
            columns[c].sort(key=mean.__getitem__)
        improved = True
        while improved:
            improved = False
            for c in range(1, len(columns)):
                for i in range(len(columns[c]) - 1):
                    before, column = around(columns, c), columns[c]
                    column[i], column[i + 1] = column[i + 1], column[i]
                    if around(columns, c) < before:
                        improved = True
                    else:
                        column[i], column[i + 1] = column[i + 1], column[i]
        if total(columns) < fewest:
            best, fewest = [list(column) for column in columns], total(columns)
    return best


def _separate(wanted: np.ndarray, heights: np.ndarray, gap: float) -> np.ndarray:
    """The positions nearest to `wanted` (least squares) in this order without overlap."""
    offset = np.concatenate([[0.0], np.cumsum((heights[:-1] + heights[1:]) / 2 + gap)])
    positions: np.ndarray = optimize.isotonic_regression(wanted - offset).x + offset
    return positions


def place(
    edges: Sequence[tuple[int, int]],
    concat: Sequence[int],
    height: Callable[[Item], float],
    gap: float,
) -> Layout:
    """Places one cell.

    Args:
      edges: (source state, target state), each with an operation; what nothing enters is an input.
      concat: the states that the output concatenates; none: there is no output of its own.
      height: the height that an item needs.
      gap: what stays free between two items of a column.
    """
    column, routes = _assign(edges, concat)
    columns: list[list[Item]] = [[] for _ in range(max(column.values()) + 1)]
    for item, c in column.items():
        columns[c].append(item)
    links: list[list[tuple[Item, Item]]] = [[] for _ in columns[1:]]
    for route in routes:
        for a, b in zip(route, route[1:], strict=False):
            links[column[a]].append((a, b))
    columns = _order(columns, links)

    heights = [np.array([height(item) for item in column]) for column in columns]
    y = {
        item: value
        for items, h in zip(columns, heights, strict=True)
        for item, value in zip(items, _separate(np.zeros(len(h)), h, gap), strict=True)
    }
    neighbours: dict[Item, list[Item]] = {item: [] for item in y}
    for a, b in {link for column_links in links for link in column_links}:
        neighbours[a].append(b)
        neighbours[b].append(a)
    for _ in range(_SWEEPS):
        for c in [*range(len(columns)), *reversed(range(len(columns)))]:
            wanted = [np.mean([y[n] for n in neighbours[i]] or [y[i]]) for i in columns[c]]
            fresh = _separate(np.array(wanted), heights[c], gap)
            y.update(zip(columns[c], fresh.tolist(), strict=True))
    top = min(y[item] - height(item) / 2 for item in y)
    bottom = max(y[item] + height(item) / 2 for item in y)
    return Layout(columns, {item: y[item] - top for item in y}, bottom - top, routes)
