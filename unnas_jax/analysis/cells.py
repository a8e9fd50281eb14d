"""Draws cells as graphs: states, operations, and how sure the search is."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path

from unnas_jax.analysis import layout, style
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.graph import Drawable, Graph, Operations, Softmax

# Sizes in inches.
_STATE = (0.5, 0.44)
_PASS = 0.17
_GAP = 0.11
_MARGIN = 0.25
_TITLE = 0.4
_LEGEND = 0.6
_COLUMN_GAP = (0.42, 1.1)  # The least and the largest distance of two columns.
_LETTER = 0.0875  # The width of a label's letter.
_STATE_LETTER = 0.1  # The same of a state's label, which is larger.
_HEAD = 0.13
_PLAIN_WIDTH = 1.6  # Points: the edges of cells without alphas.
_INPUT, _NODE, _OUTPUT = "#fff3cd", "#dbe7f3", "#ececec"


def _edge_width(weight: float | None) -> float:
    """The thickness in points of an edge whose operation has a softmax weight in [0, 1]."""
    return _PLAIN_WIDTH if weight is None else 0.9 + 5.0 * weight


@dataclasses.dataclass(frozen=True)
class _Cell:
    """One cell, its layout, and the width of every column."""

    graph: Graph
    placed: layout.Layout
    sizes: dict[layout.Item, tuple[float, float]]
    widths: list[float]

    @property
    def key(self) -> str:
        """What the names of its lines in an SVG begin with."""
        return self.graph.title.removesuffix(" cell").lower()


def _prepare(graph: Graph, weighed: bool) -> _Cell:
    operation_height = 0.42 if weighed else 0.3

    def size(item: layout.Item) -> tuple[float, float]:
        if item[0] == "operation":
            return _LETTER * len(graph.edges[item[1]][0]) + 0.16, operation_height
        if item[0] == "state":
            label = graph.labels[item[1]]
            letters = 0 if "$" in label else len(label)  # Formulas are those of two inputs.
            return max(_STATE[0], _STATE_LETTER * letters + 0.16), _STATE[1]
        return (0.72, max(0.6, 0.2 * len(graph.concat))) if item[0] == "output" else (0.0, _PASS)

    ends = [(source, target) for _, source, target in graph.edges]
    placed = layout.place(ends, graph.concat, lambda item: size(item)[1], _GAP)
    sizes = {item: size(item) for item in placed.y}
    widths = [max(sizes[item][0] for item in items) for items in placed.columns]
    return _Cell(graph, placed, sizes, widths)


def _curve(points: list[tuple[float, float]]) -> Path:
    """A line through (left x, y), (right x, y) pairs: level inside columns, smooth between."""
    vertices, codes = [points[0]], [Path.MOVETO]
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if y0 == y1:
            vertices.append((x1, y1))
            codes.append(Path.LINETO)
            continue
        middle = (x0 + x1) / 2
        vertices += [(middle, y0), (middle, y1), (x1, y1)]
        codes += [Path.CURVE4] * 3
    return Path(vertices, codes)


def _box(
    axes: Axes, centre: tuple[float, float], size: tuple[float, float], **colours: Any
) -> None:
    pad, (width, height) = 0.09, size
    corner = (centre[0] - width / 2 + pad, centre[1] - height / 2 + pad)
    shape = f"round,pad={pad},rounding_size={pad}"
    axes.add_patch(
        FancyBboxPatch(
            corner,
            width - 2 * pad,
            height - 2 * pad,
            boxstyle=shape,
            linewidth=1.1,
            zorder=3,
            clip_on=False,  # The outermost boxes touch the edge of the axes.
            **colours,
        )
    )


def _draw(figure: Figure, cell: _Cell, top: float, size: tuple[float, float]) -> None:
    """Draws a cell below `top` (inches from the figure's upper edge) of a figure of `size`."""
    width, height = size
    tall = cell.placed.height
    # One data unit is one inch, so that sizes of boxes and of text agree.
    axes = figure.add_axes(
        (0.0, 1 - (top + _TITLE + tall) / height, 1.0, tall / height),
        xlim=(0, width),
        ylim=(tall, 0),
    )
    axes.set_axis_off()
    axes.text(_MARGIN, -0.2, cell.graph.title, fontsize=12, weight="bold", va="center")
    spans = _spans(cell, width)
    _draw_edges(axes, cell, spans)
    _draw_items(axes, cell, {item: (left + right) / 2 for item, (left, right) in spans.items()})


def _spans(cell: _Cell, width: float) -> dict[layout.Item, tuple[float, float]]:
    """The left and right edge of every item's column, the columns centred in `width`."""
    spare = width - 2 * _MARGIN - sum(cell.widths)
    gap = min(spare / (len(cell.widths) - 1), _COLUMN_GAP[1])
    left = (width - sum(cell.widths) - gap * (len(cell.widths) - 1)) / 2
    spans = {}
    for items, column_width in zip(cell.placed.columns, cell.widths, strict=True):
        spans.update(dict.fromkeys(items, (left, left + column_width)))
        left += column_width + gap
    return spans


def _draw_edges(axes: Axes, cell: _Cell, spans: Mapping[layout.Item, tuple[float, float]]) -> None:
    ports = _ports(cell)

    def corners(items: Sequence[layout.Item], edge: int) -> list[tuple[float, float]]:
        """The corners of an edge from the right of its first item to the left of its last."""
        points = []
        for n, item in enumerate(items):
            left, right = spans[item]
            # Boxes may be narrower than their column: level lines lead to them.
            inset = 0.0 if item[0] == "pass" else (right - left - cell.sizes[item][0]) / 2
            y = cell.placed.y[item]
            if n > 0:
                here = y + (ports.get((edge, item), 0.0) if n == len(items) - 1 else 0.0)
                points += [(left, here), (left + inset, here)]
            if n < len(items) - 1:
                points += [(right - inset, y), (right, y)]
        return points

    for e, route in enumerate(cell.placed.routes):
        identity = f"{cell.key}-edge-{e}"
        if e >= len(cell.graph.edges):
            _edge(axes, corners(route, e), "#b5b5b5", 1.2, f"{identity}-concat", zorder=1)
            continue
        operation, source, _ = cell.graph.edges[e]
        colour = style.FAMILIES[style.family(operation)]
        width = _edge_width(cell.graph.weights[e])
        at = route.index(("operation", e, 0))
        gid = f"{identity}-{operation}-from-{source}"
        _line(axes, corners(route[: at + 1], e), colour, width, gid, zorder=2)
        _edge(axes, corners(route[at:], e), colour, width, f"{identity}-head", zorder=2)


def _draw_items(axes: Axes, cell: _Cell, x: Mapping[layout.Item, float]) -> None:
    graph = cell.graph
    for item, y in cell.placed.y.items():
        kind, index, _ = item
        here, size = (x[item], y), cell.sizes[item]
        if kind == "operation":
            operation, weight = graph.edges[index][0], graph.weights[index]
            colour = style.FAMILIES[style.family(operation)]
            _box(axes, here, size, facecolor="white", edgecolor=colour)
            _text(axes, x[item], y if weight is None else y - 0.075, operation, fontsize=9.5)
            if weight is not None:
                _text(axes, x[item], y + 0.105, f"{weight:.3f}", fontsize=7.5, color="#555555")
        elif kind == "state":
            face = _INPUT if index < graph.inputs else _NODE
            if not graph.concat and index == len(graph.states) - 1:
                face = _OUTPUT
            _box(axes, here, size, facecolor=face, edgecolor=style.INK)
            _text(axes, x[item], y, graph.labels[index], fontsize=11)
        elif kind == "output":
            _box(axes, here, size, facecolor=_OUTPUT, edgecolor=style.INK)
            _text(axes, x[item], y - 0.1, "$c_k$", fontsize=11)
            _text(axes, x[item], y + 0.12, "concat", fontsize=8.5)


def _ports(cell: _Cell) -> dict[tuple[int, layout.Item], float]:
    """How far from its target's middle every edge arrives, so that arrowheads stand apart."""
    arriving: dict[layout.Item, list[tuple[float, int]]] = {}
    for e, route in enumerate(cell.placed.routes):
        arriving.setdefault(route[-1], []).append((cell.placed.y[route[-2]], e))
    shifts = {}
    for item, edges in arriving.items():
        step = cell.sizes[item][1] / (len(edges) + 1)
        for rank, (_, e) in enumerate(sorted(edges)):
            shifts[e, item] = (rank - (len(edges) - 1) / 2) * step
    return shifts


def _text(axes: Axes, x: float, y: float, text: str, **font: Any) -> None:
    axes.text(x, y, text, ha="center", va="center", zorder=4, **font)


def _line(
    axes: Axes,
    points: list[tuple[float, float]],
    colour: str,
    width: float,
    gid: str,
    zorder: float,
) -> None:
    axes.add_patch(
        PathPatch(
            _curve(points),
            fill=False,
            edgecolor=colour,
            linewidth=width,
            capstyle="butt",
            gid=gid,
            zorder=zorder,
            clip_on=False,
        )
    )


def _edge(
    axes: Axes,
    points: list[tuple[float, float]],
    colour: str,
    width: float,
    gid: str,
    zorder: float,
) -> None:
    """An edge that ends in an arrowhead."""
    tip = points[-1]
    base = tip[0] - _HEAD
    kept = points[:-2] if points[-2][0] >= base else points[:-1]
    _line(axes, [*kept, (base, tip[1])], colour, width, gid, zorder)
    half = 0.025 + 0.55 * width / 72
    corners = [tip, (base, tip[1] - half), (base, tip[1] + half)]
    axes.add_patch(Polygon(corners, closed=True, facecolor=colour, edgecolor="none", zorder=zorder))


def _legend(figure: Figure, drawn: Sequence[Graph], weighed: bool) -> None:
    used = {style.family(operation) for graph in drawn for operation, *_ in graph.edges}
    handles = [
        Line2D([], [], color=colour, linewidth=3, label=name)
        for name, colour in style.FAMILIES.items()
        if name in used
    ]
    if weighed:
        # The weight at the start of a search, for the edges with the most operations.
        most = max(graph.choices for graph in drawn)
        larger = (0.5, "1/2") if most > 2 else (1.0, "1")
        handles += [
            Line2D([], [], color=style.INK, linewidth=_edge_width(w), label=f"weight {text}")
            for w, text in ((1 / most, f"1/{most} (undecided)"), larger)
        ]
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=min(len(handles), 4),
        frameon=False,
        fontsize=9,
        handlelength=2.2,
    )


def draw(
    cells: Drawable, softmax: Softmax | None = None, operations: Operations | None = None
) -> Figure:
    """All kinds of cell, of DARTS the normal one above the reduction cell.

    Args:
      cells: any number of nodes, any operations.
      softmax: `alphas_softmax` of a `genotype.json`. With it the thickness of an edge and a number
        show the weight of its operation; without it (published cells) all edges are equally thick.
      operations: of every edge in the search; None: those of the space.

    Raises:
      UserError: there is nothing to draw, or the weights are of another cell.
    """
    drawn, weighed = cells.graphs(softmax, operations), softmax is not None
    if not drawn:
        raise UserError(f"draw: `graphs` of {type(cells).__name__} gives none; give one at least")
    prepared = [_prepare(graph, weighed) for graph in drawn]
    width = 2 * _MARGIN + max(
        6.5, *(sum(c.widths) + _COLUMN_GAP[0] * (len(c.widths) - 1) for c in prepared)
    )
    tops, height = [], 0.05
    for cell in prepared:
        tops.append(height)
        height += _TITLE + cell.placed.height + _MARGIN
    size = (width, height + _LEGEND)
    figure = Figure(figsize=size, facecolor="white")
    for cell, top in zip(prepared, tops, strict=True):
        _draw(figure, cell, top, size)
    _legend(figure, drawn, weighed)
    return figure
