"""Whether the cells of a search drift to skip connections: in words, and as curves by epoch."""

import itertools
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unnas_jax.analysis import markup, results, style
from unnas_jax.analysis.curves import series
from unnas_jax.analysis.verdict import AGAINST_SKIPS
from unnas_jax.methods import diagnostics, stop_rules
from unnas_jax.spaces import mixed

_COLOURS = ("#0072b2", "#e69f00")


def jump(records: Sequence[results.Record], epochs: int) -> tuple[int, int] | None:
    """Where the eigenvalue grew too quickly by RobustDARTS' rule, if it did.

    Args:
      records: the rows `method` of a search's metrics.
      epochs: of the whole search.

    Returns:
      The epoch in which the rule stops, and the one whose cells it takes, both of the run and
      counted from 1; not where the search went back.
    """
    rows: list[dict[str, Any]] = []
    delay = 0  # Epochs that the run is later than its schedule, because it went back.
    for record in records:
        done = int(record["epoch"])
        if record["epoch"] != done:
            continue
        rows.append(
            {"epoch": done - delay - 1, "done": done, "eigenvalue": record.get("eigenvalue")}
        )
        if "returns_to" in record:
            rows = [row for row in rows if row["done"] <= record["returns_to"]]
            delay = done - 1 - rows[-1]["epoch"] if rows else 0
            continue
        named = stop_rules.eigenvalue(rows, epochs)
        if named is not None:
            return done, next(row["done"] for row in rows if row["epoch"] == named)
    return None


def _returns(records: Sequence[results.Record]) -> str:
    """How often a search went back, and what grew by it; empty if it did not."""
    count = sum("returns_to" in record for record in records)
    if not count:
        return ""
    first, last = (records[k].get("regularisation", 0.0) for k in (0, -1))
    times = "once" if count == 1 else f"{count} times"
    return (
        f"The eigenvalue jumped, and the search went back {times}; its regularisation grew from "
        f"{first:.3g} to {last:.3g}."
    )


def words(run: results.Run) -> list[str]:
    """Whether a search has collapsed, and what to do: sentences, the first one says it."""
    if run.genotype is None or run.alphas is None:
        return []
    chosen = mixed.names(run.space, run.genotype)
    first = min(chosen)
    skips, edges = diagnostics.skips(chosen[first]), len(chosen[first])
    share = f"{skips} of the {edges} edges of the {run.space.LABELS[first]} are skip connections"
    found = jump(run.records["method"], run.config["train"]["epochs"])
    stopped = run.document.get("stopped")
    if 2 * skips > edges:
        told = [f"Yes: {share}."]
    elif found and not stopped:
        told = [f"Perhaps: {share}, but the eigenvalue has jumped."]
    else:
        told = [f"It does not look so: {share}."]
    told += [line] if (line := _returns(run.records["method"])) else []
    if stopped:
        told.append(
            f"A rule stopped the search; these are the cells of epoch {stopped['of_epoch']}."
        )
    elif found:
        told.append(
            f"By epoch {found[0]} the largest eigenvalue in the alphas had grown by more than 1.3 "
            "times within four measurements, after which cells usually do worse once they are "
            f"discrete (RobustDARTS). The cells of epoch {found[1]} are to be preferred: "
            f"unnas-jax select {markup.quoted(run.path)} --by=magnitude --epoch={found[1]}; the "
            "option config.method.stop='eigenvalue' ends a search there."
        )
    if 2 * skips > edges:
        told.append(
            f"What to do: {AGAINST_SKIPS}. Without a new search: unnas-jax select "
            f"{markup.quoted(run.path)} takes of this supernet what it misses most."
        )
    return told


def draw(run: results.Run) -> Figure:
    """Panels above each other: skips of the first cell, entropies, and the eigenvalue if known."""
    records, labels = run.records["method"], run.space.LABELS
    first = min(labels)
    measured = len(series(records, "eigenvalue")[0]) > 0
    count = 3 if measured else 2
    figure = Figure(figsize=(8.0, 0.8 + 1.5 * count), facecolor="white")
    panels = figure.subplots(count, 1, sharex=True)
    figure.subplots_adjust(left=0.1, right=0.97, top=0.97, bottom=0.28 / count, hspace=0.15)
    _line(panels[0], records, f"skips_{first}", style.FAMILIES["skip connection"])
    panels[0].set_ylabel("skips")
    panels[0].yaxis.set_major_locator(MaxNLocator(integer=True))
    if run.genotype is not None:
        edges = len(run.space.chosen(run.genotype)[first])
        panels[0].set_ylim(-0.2, edges + 0.2)
        panels[0].axhline(edges / 2, color=style.FAINT, linestyle="--", linewidth=1.2)
    for kind, colour in zip(sorted(labels), itertools.cycle(_COLOURS), strict=False):
        _line(panels[1], records, f"entropy_{kind}", colour, labels[kind])
    panels[1].set_ylabel("entropy\n(nats)")
    panels[1].set_ylim(0, 1.08 * max(panels[1].get_ylim()[1], 1e-3))
    panels[1].legend(loc="lower left", ncols=2, frameon=False, fontsize=8)
    if measured:
        _line(panels[2], records, "eigenvalue", style.INK)
        panels[2].set_ylabel("largest\neigenvalue")
        found = jump(records, run.config["train"]["epochs"])
        if found:
            panels[2].axvline(found[0], color=style.FAINT, linestyle="--", linewidth=1.2)
    for axes in panels:
        axes.grid(color=style.GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[-1].set_xlabel("epoch")
    figure.align_ylabels(panels)
    return figure


def _line(
    axes: Axes, records: Sequence[results.Record], key: str, colour: str, name: str = ""
) -> None:
    epochs, values = series(records, key)
    few = "o" if len(values) <= 40 else ""
    axes.plot(epochs, values, color=colour, linewidth=1.4, marker=few, markersize=3.5, label=name)
