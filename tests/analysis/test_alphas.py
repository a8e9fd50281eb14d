"""Tests of the picture of the alphas."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.analysis import synthetic
from unnas_jax.analysis import alphas
from unnas_jax.analysis.history import Alphas
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts import genotype as genotypes


def drawn(given: dict[str, np.ndarray]) -> Figure:
    final = genotypes.discretise(given["normal"][-1], given["reduce"][-1])
    return alphas.draw(Alphas.of_columns(given), final)


@pytest.mark.parametrize(("rows", "nodes"), [(1, 4), (3, 4), (400, 2)])
def test_every_edge_has_a_panel_with_the_weights_of_every_operation(rows: int, nodes: int) -> None:
    given = synthetic.alphas(rows, nodes)
    figure = drawn(given)
    edges = candidates.num_edges(nodes)
    assert len(figure.axes) == 2 * edges
    for cell, panels in (
        (given["normal"], figure.axes[:edges]),
        (given["reduce"], figure.axes[edges:]),
    ):
        for e, axes in enumerate(panels):
            lines = [line for line in axes.lines if len(np.atleast_1d(line.get_xdata())) == rows]
            shown = np.stack([np.asarray(line.get_ydata()) for line in lines[-8:]], axis=1)
            expected = np.exp(cell[:, e].astype(np.float64))
            expected /= expected.sum(axis=-1, keepdims=True)
            np.testing.assert_allclose(shown, expected, rtol=1e-6)
            low, high = axes.get_ylim()
            assert low <= shown.min() and shown.max() <= high
            # A single point shows only as a marker.
            assert rows > 1 or all(line.get_marker() == "o" for line in lines[-8:])
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1


def test_the_chosen_edges_are_named_with_their_operation() -> None:
    given = synthetic.alphas(5, 4)
    titles = [axes.get_title(loc="left") for axes in drawn(given).axes]
    final = genotypes.discretise(given["normal"][-1], given["reduce"][-1])
    for pairs, shown in ((final.normal, titles[:14]), (final.reduce, titles[14:])):
        expected = {
            f"{alphas.edge_name(source, k // 2)}  {op}" for k, (op, source) in enumerate(pairs)
        }
        assert {title for title in shown if "  " in title} == expected
    assert titles[2:5] == sorted(titles[2:5], key=lambda t: ("k-2" not in t, "k-1" not in t))
    assert alphas.edge_name(2, 2) == "0→2"
