"""The output of a ranking: a table for the terminal, CSV, JSON, a picture, and one HTML page."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from unnas_jax.analysis import ranking, style
from unnas_jax.analysis.comparisons import measure_of, style_of
from unnas_jax.analysis.ranking import Ranking
from unnas_jax.analysis.sources import RATES
from unnas_jax.analysis.templates import TEMPLATES

SCHEMA = "unnas_jax.ranking/1"

_ROW = 0.34  # Inches of height for an architecture.
_LONGEST = 60  # Characters of a cell in a table.


def _factor(judge: str) -> float:
    return 100.0 if judge in RATES else 1.0


def _value(judge: str, value: float, half: float) -> str:
    factor = _factor(judge)
    text = f"{factor * value:.2f}" if factor > 1 else f"{value:.5g}"
    if not math.isnan(half) and half > 0:
        text += f" ± {factor * half:.2f}" if factor > 1 else f" ± {half:.2g}"
    return text + ("%" if factor > 1 else "")


def _cells(rankings: Sequence[Ranking]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of the table, the best mean rank first."""
    head = ["architecture", *(one.judge for one in rankings)]
    several = len(rankings) > 1
    rows = []
    by = [{row.name: row for row in one.rows} for one in rankings]
    for name, mean in ranking.mean_ranks(rankings).items():
        row = [name]
        for one, found in zip(rankings, by, strict=True):
            mine = found[name]
            row.append(
                f"{_value(one.judge, mine.mean, mine.half)}{' *' if mine.as_good else ''}  "
                f"#{mine.rank}"
            )
        rows.append([*row, *([f"{mean:.1f}"] if several else [])])
    return [*head, *(["mean rank"] if several else [])], rows


def text(rankings: Sequence[Ranking]) -> str:
    """A table for the terminal, and the meaning of the differences."""
    head, rows = _cells(rankings)
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    lines = [
        "  ".join(
            word.ljust(width) if k == 0 else word.rjust(width)
            for k, (word, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    ]
    lines.append("± 95% interval of the mean over seeds; * within noise of the best; # rank")
    lines += [f"{one.judge}: {one.verdict}" for one in rankings]
    for first, second, rho in ranking.agreement(rankings):
        lines.append(f"{first} and {second} agree with rho {rho:.2f}")
    return "\n".join(lines)


def as_csv(rankings: Sequence[Ranking], cells: Mapping[str, str]) -> str:
    """A row for every architecture, judge and seed."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["architecture", "cell", "judge", "rank", "mean", "half_interval", "seed", "value"]
    )
    for one in rankings:
        for row in one.rows:
            for seed, value in enumerate(row.values):
                half = "" if math.isnan(row.half) else row.half
                key = (row.name, cells[row.name], one.judge, row.rank)
                writer.writerow((*key, row.mean, half, seed, value))
    return buffer.getvalue()


def as_json(rankings: Sequence[Ranking], cells: Mapping[str, str]) -> dict[str, Any]:
    """The content of `ranking.json`."""

    def number(value: float) -> float | None:
        return None if math.isnan(value) else value

    return {
        "schema": SCHEMA,
        "cells": dict(cells),
        "mean_ranks": ranking.mean_ranks(rankings),
        "judges": [
            {
                "judge": one.judge,
                "verdict": one.verdict,
                "deviation": number(one.deviation),
                "noise": number(one.noise),
                "architectures": [
                    {
                        "name": row.name,
                        "rank": row.rank,
                        "mean": row.mean,
                        "half_interval": number(row.half),
                        "values": list(row.values),
                        "as_good_as_the_best": row.as_good,
                    }
                    for row in one.rows
                ],
            }
            for one in rankings
        ],
        "agreement": [
            {"judges": [first, second], "rho": number(rho)}
            for first, second, rho in ranking.agreement(rankings)
        ],
    }


def draw(rankings: Sequence[Ranking]) -> Figure:
    """A panel for every judge, a row for every architecture: seeds, mean, interval, noise."""
    order = list(ranking.mean_ranks(rankings))
    height = _ROW * len(order) + 1.3
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=(2.4 + 3.2 * len(rankings), height), facecolor="white", layout=layout)
    panels = figure.subplots(1, len(rankings), squeeze=False, sharey=True)[0]
    for axes, one in zip(panels, rankings, strict=True):
        colour = style_of(one.judge)[1]
        factor, rows = _factor(one.judge), {row.name: row for row in one.rows}
        best = factor * one.rows[0].mean
        if not math.isnan(one.noise) and one.noise > 0:
            axes.axvspan(best - factor * one.noise, best, color=colour, alpha=0.1, linewidth=0)
        for place, name in enumerate(order):
            row = rows[name]
            values, mean = factor * np.array(row.values), factor * row.mean
            axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.4, markersize=4)
            axes.plot([mean, mean], [place - 0.28, place + 0.28], color=colour, linewidth=2)
            if not math.isnan(row.half):
                half = factor * row.half
                axes.plot([mean - half, mean + half], [place, place], color=colour, linewidth=1.4)
        axes.set_yticks(range(len(order)), order, fontsize=8)
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.set_xlabel(measure_of(one.judge), fontsize=9)
        axes.grid(axis="x", color=style.GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    return figure


def page(
    rankings: Sequence[Ranking],
    cells: Mapping[str, str],
    *,
    images: str,
    facts: Sequence[tuple[str, str, str]],
    warnings: Sequence[str],
) -> str:
    """One self-contained HTML page.

    Args:
      rankings: by every judge.
      cells: the text of every architecture.
      images: where they are from.
      facts: boxes of a name, a value and a note.
      warnings: cautions.
    """
    head, rows = _cells(rankings)
    agreement = [
        ("", (first, second, "undefined" if math.isnan(rho) else f"{rho:.2f}"))
        for first, second, rho in ranking.agreement(rankings)
    ]
    texts = [
        ("", (name, cell if len(cell) <= _LONGEST else f"{cell[: _LONGEST - 3]}..."))
        for name, cell in cells.items()
    ]
    return TEMPLATES.get_template("ranking.html").render(
        images=images,
        warnings=warnings,
        facts=facts,
        verdicts=[(style_of(one.judge)[0], one.verdict) for one in rankings],
        picture=style.render(draw(rankings), "png"),
        head=head,
        rows=[("", row) for row in rows],
        agreement=agreement,
        cells=texts,
    )
