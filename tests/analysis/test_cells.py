"""Tests that the drawing of cells shows every operation, readable, and how sure the search is."""

import collections
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from tests.analysis import synthetic
from tests.toy_space import Kernels
from unnas_jax.analysis import cells, style
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts import genotype as genotypes
from unnas_jax.spaces.nasbench201.spec import EDGES, Spec

# Five nodes, parallel edges between the same states, an output that leaves nodes out.
NASNET = genotypes.Genotype(
    normal=(
        ("sep_conv_5x5", 1), ("sep_conv_3x3", 0), ("sep_conv_5x5", 0), ("sep_conv_3x3", 0),
        ("avg_pool_3x3", 1), ("skip_connect", 0), ("avg_pool_3x3", 0), ("avg_pool_3x3", 0),
        ("sep_conv_3x3", 1), ("skip_connect", 1),
    ),
    normal_concat=(2, 3, 4, 5, 6),
    reduce=(
        ("sep_conv_5x5", 1), ("sep_conv_7x7", 0), ("max_pool_3x3", 1), ("sep_conv_7x7", 0),
        ("avg_pool_3x3", 1), ("sep_conv_5x5", 0), ("skip_connect", 3), ("avg_pool_3x3", 2),
        ("sep_conv_3x3", 2), ("max_pool_3x3", 1),
    ),
    reduce_concat=(4, 5, 6),
)  # fmt: skip


def searched(nodes: int, seed: int) -> tuple[genotypes.Genotype, dict]:
    history = synthetic.alphas(5, nodes, seed)
    document = synthetic.document(history["normal"][-1], history["reduce"][-1], {})
    return genotypes.from_dict(document["genotype"]), document["alphas_softmax"]


SPEC = Spec(
    ("nor_conv_3x3", "skip_connect", "nor_conv_1x1", "avg_pool_3x3", "none", "nor_conv_3x3")
)

CASES = {
    "nasnet": (NASNET, None),
    "nasbench201": (SPEC, {"cell": (np.arange(30).reshape(6, 5) / 30).tolist()}),
    "from outside": (Kernels((3, 1, 5)), None),
    "one node": searched(1, 0),
    "four nodes": searched(4, 1),
    "four other nodes": searched(4, 2),
    "six nodes": searched(6, 3),
}


def edges(figure: Figure) -> dict[str, PathPatch]:
    found = {}
    for patch in (patch for axes in figure.axes for patch in axes.patches):
        if isinstance(patch, PathPatch) and patch.get_gid():
            found[str(patch.get_gid())] = patch
    return found


OF_DARTS = [name for name, (cell, _) in CASES.items() if isinstance(cell, genotypes.Genotype)]


@pytest.mark.parametrize("case", OF_DARTS)
def test_svg_has_every_label_and_every_edge(case: str) -> None:
    genotype, softmax = CASES[case]
    svg = style.render(cells.draw(genotype, softmax), "svg").decode()
    labels = collections.Counter(re.findall(r"<text[^>]*>(\w+_\w+)</text>", svg))
    pairs = genotype.normal + genotype.reduce
    assert labels == collections.Counter(operation for operation, _ in pairs)
    for kind, cell, concat in (
        ("normal", genotype.normal, genotype.normal_concat),
        ("reduction", genotype.reduce, genotype.reduce_concat),
    ):
        drawn = re.findall(rf'id="{kind}-edge-(\d+)-(\w+)-from-(\d+)"', svg)
        expected = [(str(k), op, str(source)) for k, (op, source) in enumerate(cell)]
        assert sorted(drawn) == sorted(expected)
        assert len(re.findall(rf'id="{kind}-edge-\d+-head"', svg)) == len(cell)
        assert len(re.findall(rf'id="{kind}-edge-\d+-concat"', svg)) == len(concat)


def test_a_cell_of_nas_bench_201() -> None:
    """Six edges by their nodes, with the operations' weights; no output of its own."""
    svg = style.render(cells.draw(*CASES["nasbench201"]), "svg").decode()
    drawn = re.findall(r'id="cell-edge-\d+-([a-z]\w+)-from-(\d)"', svg)
    expected = zip(SPEC.operations, EDGES, strict=True)
    assert drawn == [(name, str(source)) for name, (source, _) in expected]
    # Row k holds 5k/30, ... of none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3.
    numbers = re.findall(r">(\d\.\d{3})<", svg)
    assert sorted(numbers) == sorted(["0.100", "0.200", "0.400", "0.633", "0.667", "0.933"])
    assert "concat" not in svg
    with pytest.raises(UserError, match="alphas_softmax does not fit"):
        cells.draw(SPEC, {"cell": [[0.2] * 5] * 5})
    with pytest.raises(UserError, match="4 weights on an edge"):
        cells.draw(SPEC, {"cell": [[0.25] * 4] * 6})
    with pytest.raises(UserError, match="alphas_softmax of a search without a normal cell"):
        cells.draw(NASNET, {"cell": [[0.2] * 5] * 6})


@pytest.mark.parametrize("case", CASES)
def test_nothing_covers_a_label_or_a_node(case: str) -> None:
    figure = cells.draw(*CASES[case])
    renderer = FigureCanvasAgg(figure).get_renderer()
    canvas = Bbox([[0, 0], [renderer.width, renderer.height]])
    boxes: list[Bbox] = []
    texts: list[Bbox] = []
    for axes in figure.axes:
        boxes += [p.get_window_extent(renderer) for p in axes.patches
                  if isinstance(p, FancyBboxPatch)]  # fmt: skip
        texts += [t.get_window_extent(renderer) for t in axes.texts]
    legend = figure.legends[0]
    assert isinstance(legend.get_texts()[0], Text)
    everything = [*boxes, legend.get_window_extent(renderer)]
    for i, box in enumerate(everything):
        assert canvas.x0 <= box.x0 < box.x1 <= canvas.x1
        assert canvas.y0 <= box.y0 < box.y1 <= canvas.y1
        assert not any(box.overlaps(other) for other in everything[:i])
    for i, text in enumerate(texts):
        assert not any(text.overlaps(other) for other in texts[:i])
        # A text is a title, away from all boxes, or lies inside exactly one of them.
        over = [box for box in boxes if box.overlaps(text)]
        assert len(over) <= 1
        for box in over:
            assert box.x0 < text.x0 and text.x1 < box.x1
            assert box.y0 < text.y0 and text.y1 < box.y1


@pytest.mark.parametrize("case", CASES)
def test_edges_pass_beside_all_boxes_but_their_ends(case: str) -> None:
    figure = cells.draw(*CASES[case])
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [
        patch.get_window_extent(renderer).expanded(0.97, 0.9)
        for axes in figure.axes
        for patch in axes.patches
        if isinstance(patch, FancyBboxPatch)
    ]
    for name, patch in edges(figure).items():
        path = patch.get_path().transformed(patch.get_transform())
        points = path.interpolated(1).to_polygons(closed_only=False)[0]
        dense = np.concatenate(
            [np.linspace(a, b, 20) for a, b in zip(points, points[1:], strict=False)]
        )
        for box in boxes:
            inside = (dense > [box.x0, box.y0]) & (dense < [box.x1, box.y1])
            assert not inside.all(axis=1).any(), name


def test_parallel_edges_are_apart() -> None:
    found = edges(cells.draw(NASNET))
    first, second = (found[f"normal-edge-{k}-avg_pool_3x3-from-0"] for k in (6, 7))
    assert not np.allclose(first.get_path().vertices[-1], second.get_path().vertices[-1])


def test_thickness_follows_the_weight_of_the_chosen_operation() -> None:
    genotype, softmax = searched(4, 4)
    found = edges(cells.draw(genotype, softmax))
    weights, widths = [], []
    first_edge = [0, 2, 5, 9]  # The edges of node i start here in the order of the alphas.
    for k, (operation, source) in enumerate(genotype.normal):
        row = softmax["normal"][first_edge[k // 2] + source]
        weights.append(row[candidates.OPERATIONS.index(operation)])
        widths.append(found[f"normal-edge-{k}-{operation}-from-{source}"].get_linewidth())
    assert np.argsort(weights).tolist() == np.argsort(widths).tolist()
    assert max(widths) > min(widths)
    published = edges(cells.draw(genotype))
    uniform = {p.get_linewidth() for n, p in published.items() if not n.endswith("concat")}
    assert len(uniform) == 1


def test_the_same_cells_give_the_same_bytes() -> None:
    for kind in ("svg", "png"):
        first, second = (style.render(cells.draw(NASNET), kind) for _ in range(2))
        assert first == second


def test_weights_of_other_cells_are_refused() -> None:
    genotype, _ = searched(4, 1)
    _, softmax = searched(2, 1)
    with pytest.raises(UserError, match="alphas_softmax"):
        cells.draw(genotype, softmax)
    genotype, softmax = searched(4, 1)
    fewer = {kind: [row[:3] for row in rows] for kind, rows in softmax.items()}
    with pytest.raises(UserError, match="3 weights on an edge of 8 operations"):
        cells.draw(genotype, fewer)
