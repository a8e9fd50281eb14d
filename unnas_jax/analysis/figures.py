"""The paper's figures 2 to 5: `unnas-jax figures RUNS... --out=DIR`.

RUNS are workdirs of sweeps, also unfinished ones, and CSV files of other tools (columns as in
`unnas_jax.analysis.accuracies`). For every dataset with labels it draws pretext against supervised
accuracy (figures 2 and 3) and the random experiment curve; for every two datasets the same from one
to the other (figures 4 and 5). Pictures are PNG, SVG and PDF; the numbers are in
`correlations.csv`, `random_experiments.csv` and `accuracies.csv`.
"""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from unnas_jax.analysis import accuracies, style
from unnas_jax.analysis.comparisons import (
    LEAST,
    SUPERVISED,
    Comparison,
    compare,
    dataset_name,
    order,
    rho_text,
    space_name,
    style_of,
)
from unnas_jax.analysis.sources import UNTRAINED
from unnas_jax.core import files, logs
from unnas_jax.core.errors import UserError

KINDS = ("png", "svg", "pdf")


def _percent(axes: Axes, axis: str) -> None:
    of_axis = axes.xaxis if axis == "x" else axes.yaxis
    of_axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    of_axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def _frame(axes: Axes) -> None:
    axes.grid(color=style.GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color=style.FAINT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(style.FAINT)


_FAR = 5
"""Accuracies so many interquartile ranges below the first quartile lie outside of a plot."""


def _scatter(axes: Axes, comparison: Comparison) -> None:
    _, colour, _, _ = style_of(comparison.task)
    x, y = 100 * comparison.supervised, comparison.factor * comparison.shown
    few = len(x) <= 60
    # A network that did not learn would squeeze all others together: it is an arrow at the edge.
    quarter, three = np.percentile(x, (25, 75))
    edge = quarter - _FAR * (three - quarter)
    near = (x >= edge) | (x == x.max())
    faint: dict[str, Any] = {
        "color": colour,
        "alpha": 0.75 if few else 0.45,
        "linewidths": 0,
        "zorder": 3,
    }
    axes.scatter(x[near], y[near], s=18 if few else 8, **faint)
    if not near.all():
        # Their heights count for the limits.
        axes.scatter(np.full((~near).sum(), x[near].min()), y[~near], s=30, marker="<", **faint)
    axes.margins(0.06)
    # Limits are those of the points: a steep line must not stretch the axes.
    left, right, low, high = *axes.get_xlim(), *axes.get_ylim()
    if comparison.line is not None:
        ends = np.array([x[near].min(), x.max()])
        line, factor = comparison.line, comparison.factor
        axes.plot(
            ends,
            factor * (line.slope * ends / 100 + line.intercept),
            color=style.INK,
            linewidth=1.3,
            zorder=4,
        )
    axes.set_xlim(left, right)
    # Room for the words above the points.
    axes.set_ylim(low, high + 0.14 * (high - low))
    axes.text(
        0.03,
        0.97,
        rho_text(comparison.correlation),
        transform=axes.transAxes,
        va="top",
        fontsize=9,
        color=style.INK,
        zorder=5,
    )
    _percent(axes, "x")
    _percent(axes, "y")
    _frame(axes)


def draw_scatter(comparisons: Sequence[Comparison]) -> Figure:
    """A panel for every comparison: a row for each space, a column for each task.

    Args:
      comparisons: of one source and one target.
    """
    spaces = sorted({c.space for c in comparisons})
    tasks = sorted({c.task for c in comparisons}, key=order)
    source, target = comparisons[0].source, comparisons[0].target
    # Wide enough for the title over a single column, too.
    width, height = max(0.5 + 2.75 * len(tasks), 5.4), 0.55 + 2.45 * len(spaces)
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.05)
    figure = Figure(figsize=(width, height), facecolor="white", layout=layout)
    panels = figure.subplots(len(spaces), len(tasks), squeeze=False)
    there = {(c.space, c.task): c for c in comparisons}
    for row, space in enumerate(spaces):
        for column, task in enumerate(tasks):
            axes = panels[row, column]
            comparison = there.get((space, task))
            if comparison is None:
                axes.set_axis_off()
                continue
            _scatter(axes, comparison)
            axes.set_ylabel(comparison.measure, fontsize=9)
            axes.set_title(
                f"{space_name(space)}, {len(comparison.names)} architectures"
                if column == 0
                else "",
                fontsize=9.5,
                fontweight="bold",
                color=style.INK,
                loc="left",
            )
            if row == len(spaces) - 1:
                where = "" if source == target else f" on {dataset_name(target)}"
                axes.set_xlabel(f"Supervised accuracy{where}, %", fontsize=8.5)
    if source == target:
        title = f"{dataset_name(source)}: pretext against supervised accuracy"
    else:
        what = "Scores" if source == UNTRAINED else f"Accuracy on {dataset_name(source)}"
        title = f"{what} against supervised accuracy on {dataset_name(target)}"
    figure.suptitle(title, fontsize=11.5, x=0.01, ha="left", color=style.INK)
    return figure


def draw_random_experiments(comparisons: Sequence[Comparison]) -> Figure:
    """The random experiment efficiency curves: a panel for each space, a line for each task.

    Args:
      comparisons: of one source and one target.
    """
    spaces = sorted({c.space for c in comparisons})
    source, target = comparisons[0].source, comparisons[0].target
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=(0.6 + 4.3 * len(spaces), 4.0), facecolor="white", layout=layout)
    panels = figure.subplots(1, len(spaces), squeeze=False)[0]
    handles: dict[str, Line2D] = {}
    for axes, space in zip(panels, spaces, strict=True):
        mine = sorted((c for c in comparisons if c.space == space), key=lambda c: order(c.task))
        for comparison in mine:
            label, colour, dashes, marker = style_of(comparison.task)
            found = comparison.experiments
            mean, band = 100 * found.means, 200 * found.deviations
            axes.fill_between(
                found.sizes, mean - band, mean + band, color=colour, alpha=0.1, linewidth=0
            )
            for edge in (mean - band, mean + band):
                axes.plot(found.sizes, edge, color=colour, alpha=0.35, linewidth=0.6)
            (line,) = axes.plot(
                found.sizes,
                mean,
                color=colour,
                linestyle=dashes,
                marker=marker,
                markersize=3.5,
                linewidth=1.6,
            )
            handles.setdefault(label, line)
        count = max(int(c.experiments.sizes[-1]) for c in mine)
        axes.set_xscale("log", base=2)
        ticks = sorted({2**k for k in range(int(np.log2(count / 1.4)) + 1)} | {count})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        # Two deviations may reach beyond what an accuracy can be.
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -1.0), min(high, 101.0))
        _percent(axes, "y")
        _frame(axes)
        axes.set_title(
            f"{space_name(space)}, {count} architectures",
            fontsize=9.5,
            fontweight="bold",
            color=style.INK,
            loc="left",
        )
        axes.set_xlabel("Experiment size (architectures drawn)", fontsize=9)
    panels[0].set_ylabel(f"Supervised accuracy on {dataset_name(target)}, %", fontsize=9)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=min(len(handles), 2 * len(spaces)),  # Characters that have room below a single panel.
        frameon=False,
        fontsize=9,
        handlelength=3.2,
    )
    # One line where there is room for it.
    between = "\n" if len(spaces) == 1 else " "
    by = "score" if source == UNTRAINED else f"accuracy on {dataset_name(source)}"
    figure.suptitle(
        f"Random experiments: the best by {by}{between}(mean ± 2 deviations)",
        fontsize=11.5,
        x=0.01,
        ha="left",
        color=style.INK,
    )
    return figure


def _pairs(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, list[Comparison]]]:
    """The comparisons of every source and target, and a name for their files."""
    for source, target, labels in sorted({(c.source, c.target, c.labels) for c in comparisons}):
        key = (source, target, labels)
        mine = [c for c in comparisons if (c.source, c.target, c.labels) == key]
        name = source if source == target else f"{source}_to_{target}"
        yield (name if labels == SUPERVISED[0] else f"{name}_{labels}"), mine


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue().encode()


def _correlations(comparisons: Sequence[Comparison]) -> bytes:
    header = (
        "space source_dataset task target_dataset labels architectures rho low high slope "
        "intercept without_labels without_task"
    )
    rows = []
    for c in comparisons:
        line = (c.line.slope, c.line.intercept) if c.line else ("", "")
        of = c.correlation
        key = (c.space, c.source, c.task, c.target, c.labels)
        rows.append((*key, of.count, of.rho, of.low, of.high, *line, *c.unmatched))
    return _csv(header.split(), rows)


def _experiments(comparisons: Sequence[Comparison]) -> bytes:
    header = "space source_dataset task target_dataset size draws mean deviation"
    rows = [
        (c.space, c.source, c.task, c.target, *values)
        for c in comparisons
        for values in zip(
            c.experiments.sizes,
            c.experiments.draws,
            c.experiments.means,
            c.experiments.deviations,
            strict=True,
        )
    ]
    return _csv(header.split(), rows)


def write(
    paths: Sequence[str], out: str, *, seed: int = 0, kinds: Sequence[str] = KINDS
) -> tuple[list[Comparison], list[str]]:
    """Draws all figures that the accuracies allow; returns the comparisons and the paths written.

    Args:
      paths: workdirs of sweeps, and CSV files.
      out: the directory to write to.
      seed: of the bootstrap and of the random experiments.
      kinds: the formats of pictures.

    Raises:
      UserError: nothing can be compared, or a file cannot be read or written.
    """
    rows = accuracies.read(paths)
    with logs.telling("Comparing", after=10.0):
        comparisons = compare(accuracies.table(rows), seed=seed)
    if all(comparison.same for comparison in comparisons):
        raise UserError(
            f"figures: no {LEAST} architectures have both the task {SUPERVISED[0]!r} and another "
            "one; wait for the sweep, or give more results"
        )
    content = {
        "accuracies.csv": accuracies.write_csv(rows).encode(),
        "correlations.csv": _correlations([c for c in comparisons if not c.same]),
        "random_experiments.csv": _experiments(comparisons),
    }
    for name, mine in _pairs(comparisons):
        pictures = {f"random_{name}": draw_random_experiments(mine)}
        others = [comparison for comparison in mine if not comparison.same]
        if others:
            pictures[f"scatter_{name}"] = draw_scatter(others)
        for stem, figure in pictures.items():
            for kind in kinds:
                content[f"{stem}.{kind}"] = style.render(figure, kind)
    written = []
    try:
        os.makedirs(out, exist_ok=True)
        for name, data in content.items():
            written.append(os.path.join(out, name))
            with files.replacing(written[-1], "wb") as file:
                file.write(data)
    except OSError as error:
        raise UserError(f"figures: cannot write to {out} ({error.strerror})") from error
    return comparisons, written
