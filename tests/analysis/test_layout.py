"""Tests that a layout leaves everything its own place."""

import itertools

import numpy as np
import pytest

from unnas_jax.analysis import layout

GAP = 0.1


def random_cell(seed: int, nodes: int) -> tuple[list[tuple[int, int]], tuple[int, ...]]:
    """Edges, two into every node; and the states of the output, of every third cell none."""
    rng = np.random.default_rng(seed)
    edges = [(int(rng.integers(k // 2 + 2)), k // 2 + 2) for k in range(2 * nodes)]
    concat = rng.choice(nodes + 2, size=int(rng.integers(1, nodes + 2)), replace=False)
    return edges, () if seed % 3 == 2 else tuple(int(state) for state in concat)


def height(item: layout.Item) -> float:
    return {"state": 0.4, "operation": 0.3, "output": 0.9}.get(item[0], 0.15)


@pytest.mark.parametrize("seed", range(12))
def test_items_keep_apart_and_edges_visit_every_column_in_between(seed: int) -> None:
    edges, concat = random_cell(seed, nodes=1 + seed % 6)
    placed = layout.place(edges, concat, height, GAP)
    column_of = {item: c for c, items in enumerate(placed.columns) for item in items}
    assert set(column_of) == set(placed.y)
    for items in placed.columns:
        for above, below in itertools.pairwise(items):
            free = placed.y[below] - placed.y[above] - (height(above) + height(below)) / 2
            assert free >= GAP - 1e-9
    for item, y in placed.y.items():
        assert height(item) / 2 - 1e-9 <= y <= placed.height - height(item) / 2 + 1e-9
    assert len(placed.routes) == len(edges) + len(concat)
    for route in placed.routes:
        visited = [column_of[item] for item in route]
        assert visited == list(range(visited[0], visited[-1] + 1))
    for k, (source, target) in enumerate(edges):
        route = placed.routes[k]
        assert (route[0], route[-1]) == (("state", source, 0), ("state", target, 0))
        assert route[-2] == ("operation", k, 0)
    ends = [(route[0], route[-1]) for route in placed.routes[len(edges) :]]
    assert ends == [(("state", state, 0), layout.OUTPUT) for state in concat]


def test_inputs_keep_their_order_and_a_planar_cell_has_no_crossing() -> None:
    # Listed so that the order of the edges alone would cross some.
    placed = layout.place([(1, 2), (1, 2), (0, 3), (0, 3)], (2, 3), height, GAP)
    assert placed.columns[0] == [("state", 0, 0), ("state", 1, 0)]
    links = {link for route in placed.routes for link in itertools.pairwise(route)}
    order = {item: i for items in placed.columns for i, item in enumerate(items)}
    column_of = {item: c for c, items in enumerate(placed.columns) for item in items}
    for (a, b), (c, d) in itertools.combinations(links, 2):
        if column_of[a] == column_of[c]:
            assert (order[a] - order[c]) * (order[b] - order[d]) >= 0
