"""Draws how the operation weights of every edge of the supernet evolve during a search."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from unnas_jax.analysis import style
from unnas_jax.analysis.history import Alphas
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts import mixed as darts
from unnas_jax.spaces.darts.candidates import Candidates
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.mixed import Mixed
from unnas_jax.spaces.registry import Cells

# Sizes in inches.
_PANEL = (1.85, 1.35)
_LEFT = 0.85
_TITLE = 0.6
_LEGEND = 0.8

_MOST_ROWS = 1000


def edge_name(source: int, node: int) -> str:
    """An edge of a cell by the names of its states, as in the drawing of the cells."""
    return f"{style.state_name(source)}→{style.state_name(node + 2)}"


def _panel(
    axes: Axes,
    epoch: np.ndarray,
    weights: np.ndarray,
    operations: Sequence[str],
    name: str,
    chosen: str | None,
) -> None:
    """One edge: `weights` has the shape (T, O); its operations come first."""
    few: dict[str, Any] = {"marker": "o", "markersize": 2.5} if len(epoch) < 12 else {}
    axes.axhline(1 / len(operations), color=style.FAINT, linewidth=0.6, zorder=1)
    for k, operation in enumerate(operations):
        colour, dash = style.of_operation(operation)
        kept = operation == chosen
        axes.plot(
            epoch,
            weights[:, k],
            color=colour,
            linestyle=dash,
            linewidth=2.4 if kept else 1.0,
            zorder=3 if kept else 2,
            **few,
        )
    title = f"{name}  {chosen}" if chosen else name
    axes.set_title(
        title,
        fontsize=8,
        weight="bold" if chosen else "normal",
        color=style.INK if chosen else "#666666",
        pad=3,
        loc="left",
    )
    axes.set_facecolor("#eef4fa" if chosen else "white")
    for spine in axes.spines.values():
        spine.set(color=style.INK if chosen else "#c8c8c8", linewidth=1.3 if chosen else 0.7)
    axes.tick_params(labelsize=7, length=2, labelbottom=False, labelleft=False)


def draw(
    history: Alphas,
    cells: Cells,
    operations: Candidates | None = None,
    space: Mixed = darts,
) -> Figure:
    """One panel an edge, in DARTS the normal cell above the reduction cell.

    Rows are the states that edges leave, columns the nodes they enter, so that the two edges
    that a node of DARTS keeps (shaded, with the operation in the title) stand in one column. All
    panels share both axes; the thin line is where every search starts, 1/8 of eight operations.

    Args:
      history: of the architecture parameters.
      cells: the discrete cells of the last row.
      operations: of every edge; None: those of DARTS.
      space: of the cells.
    """
    history, chosen_edges = _thinned(history), space.chosen(cells)
    if operations is None:
        operations = candidates.everywhere(len(chosen_edges["normal"]) // 2)
    edges = space.edges(operations)
    columns = sorted({node for _, node in edges})
    nodes, rows = len(columns), 1 + max(source for source, _ in edges)
    part = _TITLE + rows * _PANEL[1]
    mixing = history.mixing
    size = (_LEFT + nodes * _PANEL[0], len(mixing) * part + _LEGEND)
    figure = Figure(figsize=size, facecolor="white")
    limits = _limits(history.epoch, list(mixing.values()))
    for half, (kind, cell) in enumerate(sorted(mixing.items())):
        kept = {(source, node): operation for operation, source, node in chosen_edges[kind]}
        top = 1 - half * part / size[1]
        grid = figure.add_gridspec(
            rows,
            nodes,
            left=_LEFT / size[0],
            right=1 - 0.12 / size[0],
            top=top - _TITLE / size[1],
            bottom=top - (part - 0.42) / size[1],
            wspace=0.12,
            hspace=0.42,
        )
        title = space.LABELS[kind].capitalize()
        figure.text(
            0.15 / size[0], top - 0.22 / size[1], title, fontsize=12, weight="bold", va="center"
        )
        for e, (source, node) in enumerate(edges):
            axes = figure.add_subplot(grid[source, columns.index(node)], **limits)
            chosen = kept.get((source, node))
            name = edge_name(source, node) if isinstance(cells, Genotype) else f"{source}→{node}"
            _panel(axes, history.epoch, cell[:, e], operations[kind][e], name, chosen)
            if len(history.epoch) == 1:
                axes.set_xticks(history.epoch)
            if source == max(s for s, n in edges if n == node):  # The lowest of its column.
                axes.tick_params(labelbottom=True)
                axes.set_xlabel("epoch", fontsize=8, labelpad=1)
            if node == min(n for s, n in edges if s == source):  # The leftmost of its row.
                axes.tick_params(labelleft=True)
            if e == 0:
                axes.set_ylabel("weight", fontsize=8)
    used = dict.fromkeys(
        operation for own in operations.values() for edge in own for operation in edge
    )
    handles = [
        Line2D([], [], color=colour, linestyle=dash, linewidth=2, label=operation)
        for operation, (colour, dash) in ((name, style.of_operation(name)) for name in used)
    ]
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=4 if nodes > 2 else 2,
        frameon=False,
        fontsize=9,
        handlelength=3,
    )
    return figure


def _thinned(history: Alphas) -> Alphas:
    """At most as many rows as a panel can show, with the first and the last."""
    last = len(history.rows) - 1
    chosen = np.linspace(0, last, min(last + 1, _MOST_ROWS)).round().astype(int)
    return Alphas(tuple(history.rows[k] for k in chosen))


def _limits(epoch: np.ndarray, weights: list[np.ndarray]) -> dict[str, tuple[float, float]]:
    """The axes that all panels share: all epochs, all weights, and zero if near."""
    last = float(epoch[-1])
    low, high = min(float(w.min()) for w in weights), max(float(w.max()) for w in weights)
    margin = max(0.05 * (high - low), 0.0005)
    bottom = low - margin if low > 0.03 else 0.0
    return {
        "xlim": (-0.02 * last, 1.02 * last) if last > 0 else (-0.5, 0.5),
        "ylim": (bottom, high + margin),
    }
