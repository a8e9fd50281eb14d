"""The picture of a story: every training of the found cell and of random ones, on one axis."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from unnas_jax.analysis import style

_FOUND, _RANDOM = "#d55e00", "#0072b2"
_ROW = 0.36  # Inches of height for a cell.


def draw(story: Mapping[str, Any], found: str) -> Figure:
    """A row for every cell, the best on top: its seeds as dots, their mean and deviation.

    The band is the mean of the random cells' means and their deviation.

    Args:
      story: the content of `story.json`.
      found: the name of the cell that the search found.
    """
    cells = list(story["cells"])
    height = _ROW * len(cells) + 1.75
    figure = Figure(figsize=(8.0, height), facecolor="white")
    axes = figure.add_axes((0.14, 0.62 / height, 0.71, 1 - 1.75 / height))
    middle, spread = 100 * story["random_mean"], 100 * story["random_std"]
    axes.axvspan(middle - spread, middle + spread, color=_RANDOM, alpha=0.1, linewidth=0)
    axes.axvline(middle, color=_RANDOM, linewidth=1.2, linestyle="--")
    beside = blended_transform_factory(axes.transAxes, axes.transData)
    for row, cell in enumerate(cells):
        mine = cell["name"] == found
        colour = _FOUND if mine else _RANDOM
        values, mean, std = 100 * np.array(cell["values"]), 100 * cell["mean"], 100 * cell["std"]
        axes.plot([mean - std, mean + std], [row, row], color=colour, linewidth=2.2, alpha=0.45)
        axes.plot([mean, mean], [row - 0.27, row + 0.27], color=colour, linewidth=2.2)
        axes.plot(
            values,
            np.full(len(values), row),
            "D" if mine else "o",
            color=colour,
            markersize=6,
            markeredgecolor="white",
            markeredgewidth=0.7,
        )
        axes.text(
            1.02,
            row,
            f"{mean:.1f}" + (f" ± {std:.1f}" if len(values) > 1 else ""),
            transform=beside,
            va="center",
            fontsize=9,
            color=colour,
        )
    axes.set_yticks(range(len(cells)), [cell["name"] for cell in cells])
    for label, cell in zip(axes.get_yticklabels(), cells, strict=True):
        label.set_color(_FOUND if cell["name"] == found else style.INK)
        label.set_fontweight("bold" if cell["name"] == found else "normal")
    axes.set_ylim(len(cells) - 0.4, -0.6)
    axes.set_xlabel(f"{story['metric']} on held-out images of {story['dataset']}, %")
    axes.grid(axis="x", color=style.GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    task = (story["searched_on"] or {}).get("task", "an unknown task")
    figure.text(
        0.02,
        1 - 0.32 / height,
        f"Found without labels ({task}): rank {story['rank']} of {story['of']}",
        fontsize=12.5,
        fontweight="bold",
        color=style.INK,
    )
    seeds = max(len(cell["values"]) for cell in cells)
    trainings = "training" if seeds == 1 else "trainings"
    figure.text(
        0.02,
        1 - 0.62 / height,
        f"Against {len(cells) - 1} random cells of the same size, trained with labels. Dots: "
        f"{seeds} {trainings} a cell;\nstroke and bar: their mean and deviation. Dashed line and "
        "band: mean and deviation of the random cells' means.",
        fontsize=9,
        color=style.INK,
        va="center",
        linespacing=1.35,
    )
    return figure
