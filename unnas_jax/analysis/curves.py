"""Draws loss, accuracy and learning rate of a search against the epoch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unnas_jax.analysis import results, style

_HALF_A, _HALF_B, _VALIDATION = "#0072b2", "#e69f00", "#222222"
_SMOOTH_FROM = 150  # Points from which the noise of single batches hides the trend.


def series(records: Sequence[results.Record], key: str) -> tuple[np.ndarray, np.ndarray]:
    """The epochs and values of all records that have `key`."""
    have = [record for record in records if record.get(key) is not None]
    epochs = np.array([record["epoch"] for record in have], dtype=np.float64)
    return epochs, np.array([record[key] for record in have], dtype=np.float64)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """The centred mean over `window` values (odd), over fewer where they end."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    middle = np.arange(len(values))
    first = np.maximum(middle - window // 2, 0)
    last = np.minimum(middle + window // 2 + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def _trend(axes: Axes, records: Sequence[results.Record], key: str, colour: str, name: str) -> None:
    epochs, values = series(records, key)
    if len(values) == 0:
        return
    if len(values) >= _SMOOTH_FROM:
        axes.plot(epochs, values, color=colour, linewidth=0.6, alpha=0.3)
        values = smooth(values, 2 * (len(values) // 60) + 1)
    few: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(values) < 12 else {}
    axes.plot(epochs, values, color=colour, linewidth=1.6, label=name, **few)


def draw(run: results.Run) -> Figure:
    """Three panels above each other: loss, accuracy with chance, learning rate."""
    figure = Figure(figsize=(8.0, 7.0), facecolor="white")
    grid = figure.add_gridspec(
        3, 1, height_ratios=(4, 4, 1.3), left=0.1, right=0.97, top=0.93, bottom=0.08, hspace=0.12
    )
    loss = figure.add_subplot(grid[0])
    accuracy = figure.add_subplot(grid[1], sharex=loss)
    rate = figure.add_subplot(grid[2], sharex=loss)
    train, validation = run.records["train"], run.records["validation"]
    for axes, key in ((loss, "loss"), (accuracy, "accuracy")):
        _trend(axes, train, key, _HALF_A, "half A (weights), batches")
        _trend(axes, train, f"alpha_{key}", _HALF_B, "half B (alphas), batches")
        epochs, values = series(validation, key)
        if len(values):
            axes.plot(
                epochs,
                values,
                color=_VALIDATION,
                linewidth=1.1,
                marker="D" if len(values) <= 40 else "",
                markersize=4,
                label="half B, validation",
            )
    if run.chance is not None:
        accuracy.axhline(
            run.chance, color=style.FAINT, linestyle="--", linewidth=1.2, label="chance"
        )
        if run.chance:  # The cross-entropy of a uniform guess.
            loss.axhline(-np.log(run.chance), color=style.FAINT, linestyle="--", linewidth=1.2)
    epochs, values = series(train, "learning_rate")
    rate.plot(epochs, values, color="#666666", linewidth=1.2, marker="o" if len(epochs) < 3 else "")
    for axes, name in ((loss, "loss"), (accuracy, "accuracy"), (rate, "learning\nrate")):
        axes.set_ylabel(name)
        axes.grid(color=style.GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8, labelbottom=axes is rate)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    accuracy.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    accuracy.set_ylim(bottom=0)
    loss.set_xlim(0, 1.01 * max((record["epoch"] for record in train), default=1.0))
    rate.set_ylim(bottom=0)
    rate.set_xlabel("epoch")
    figure.align_ylabels([loss, accuracy, rate])
    handles, labels = accuracy.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=4, frameon=False, fontsize=9)
    if not train:
        accuracy.text(0.5, 0.5, "nothing logged yet", transform=accuracy.transAxes, ha="center")
    elif not len(values):
        words = "not known: the optimizer was an object"
        rate.text(0.5, 0.5, words, transform=rate.transAxes, ha="center", va="center")
    return figure
