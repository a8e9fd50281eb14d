"""Writes the report of a search or a training: one HTML page from the files of its workdir."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe

from unnas_jax.analysis import choice, collapse, graphs, markup, next_step, results
from unnas_jax.analysis.markup import percent
from unnas_jax.analysis.templates import TEMPLATES
from unnas_jax.core.logs import duration
from unnas_jax.spaces.graph import Graph

_REFRESH_SECONDS = 30  # How often a page that is still open reloads while a run goes on.


def training_seconds(run: results.Run) -> float | None:
    """The time in steps: images of every interval over its images a second; None if unknown.

    Compilation, validation and the time between launches are not in it. The images of a step are
    a batch of half A and, once the alphas move, one of half B; in a training one for every seed.
    """
    total, step = 0.0, 0
    size = run.config["train"]["batch_size"] * run.config.get("seeds", 1)
    for record in run.records["train"]:
        rate = record.get("images_per_second", 0)
        if rate > 0:
            batches = (record["step"] - step) * (2 if "alpha_loss" in record else 1)
            total += batches * size / rate
        step = record["step"]
    return total or None


def _progress(run: results.Run) -> list[tuple[str, str, str]]:
    """The boxes that all runs have: task, data, steps, time, hardware."""
    config, train = run.config, run.records["train"]
    facts = [
        ("task", config["task"]["name"], ""),
        ("dataset", config["dataset"]["name"], config["dataset"]["path"]),
    ]
    step, epoch = _position(run)
    planned = config["train"]["epochs"]
    facts.append(("steps", f"{step:,}", f"epoch {epoch:.4g} of {planned:g}"))
    seconds = training_seconds(run)
    if seconds is not None:
        left = float(train[-1].get("seconds_left", math.nan))
        going = not run.finished and math.isfinite(left)
        note = f"about {duration(left)} left" if going else "in steps, by images per second"
        facts.append(("time", duration(seconds), note))
    start = run.records["start"][-1] if run.records["start"] else {}
    if "devices" in start:
        number = start["devices"]
        images = [f"{start[k]:,}" for k in ("train_images", "validation_images") if k in start]
        devices = f"{number} {start.get('backend', '')} device{'s' if number != 1 else ''}"
        facts.append(("hardware", devices, f"{' + '.join(images)} images" if images else ""))
    return facts


def _search_facts(run: results.Run) -> list[tuple[str, str, str]]:
    facts = choice.facts(run.document)
    if run.records["validation"]:
        last = run.records["validation"][-1]
        against = "" if run.chance is None else f"chance {percent(run.chance)}, "
        note = f"{against}epoch {last['epoch']:.4g}, loss {last['loss']:.3f}"
        facts.append(("validation accuracy", percent(last["accuracy"]), note))
    if run.records["method"] and run.alphas is not None:
        last, labels = run.records["method"][-1], run.space.LABELS
        first = min(labels)
        known = [record for record in run.records["method"] if "eigenvalue" in record]
        entropies = [f"{last[f'entropy_{k}']:.2f}" for k in labels if f"entropy_{k}" in last]
        note = f"entropy of the weights {' and '.join(entropies)} nats" if entropies else ""
        if f"skips_{first}" in last:
            facts.append((f"skips, {labels[first]}", f"{last[f'skips_{first}']:g}", note))
        if known:
            value, epoch = known[-1]["eigenvalue"], known[-1]["epoch"]
            facts.append(("largest eigenvalue", f"{value:.3g}", f"in the alphas, epoch {epoch:g}"))
    return [*facts, ("seed", str(run.config["seed"]), ""), *_progress(run)]


def _training_facts(run: results.Run) -> list[tuple[str, str, str]]:
    result, facts = run.result, []
    if result:
        spread = f" ± {100 * result['std']:.2f}" if len(result["values"]) > 1 else ""
        guess = f", chance {percent(result['chance'])}" if "chance" in result else ""
        each = ", ".join(f"{100 * value:.2f}" for value in result["values"])
        facts += [
            (f"{result['metric']}, held out", f"{100 * result['mean']:.2f}{spread}%", each + guess),
            *(
                [("top-5", percent(sum(result["top5"]) / len(result["top5"])), "")]
                if "top5" in result
                else []
            ),
            ("cell", result["genotype"], f"{result['cells']} cells of width {result['width']}"),
            (
                "parameters",
                f"{result['parameters'] / 1e6:,.2f} M",
                f"{result['multiply_adds'] / 1e6:,.0f} M multiply-adds",
            ),
        ]
    seed, count = run.config["seed"], run.config["seeds"]
    seeds = f"{seed} to {seed + count - 1}" if count > 1 else str(seed)
    return [*facts, ("seeds", seeds, ""), *_progress(run)]


_MOST_CLASSES = 30  # The most classes of a confusion on a page.


def _classes(run: results.Run) -> dict[str, Any]:
    """The metrics of every class and the confusion, for the page."""
    found = run.result.get("by_class")
    if not run.is_training or not found:
        return {}
    names, counts = found["names"], found["confusion"]
    rows = [
        (False, (name, "does not occur" if value is None else percent(value), f"{sum(row):,}"))
        for name, value, row in zip(names, found["values"], counts, strict=True)
    ]
    shares = [
        (False, (name, *(f"{100 * count / max(sum(row), 1):.0f}" for count in row)))
        for name, row in zip(names, counts, strict=True)
    ]
    return {
        "class_metric": found["metric"],
        "class_unit": "pixels" if run.config["task"]["name"] == "segmentation" else "images",
        "class_rows": rows,
        "confusion_head": ("true class, answered as (%)", *names),
        "confusion_rows": shares if len(names) <= _MOST_CLASSES else [],
    }


def _position(run: results.Run) -> tuple[int, float]:
    """The latest step and epoch in any of the files."""
    known = [(record["step"], record["epoch"]) for record in run.records["train"]]
    document = run.result if run.is_training else run.document
    if "step" in document and "epoch" in document:
        known.append((document["step"], document["epoch"]))
    step, epoch = max(known, default=(0, 0.0))
    return int(step), float(epoch)


def _sizes(sizes: Sequence[Mapping[str, Any]]) -> list[tuple[bool, tuple[str, ...]]]:
    return [
        (
            False,
            (
                size["name"],
                str(size["cells"]),
                str(size["width"]),
                f"{size['input_size']} px",
                f"{size['parameters'] / 1e6:,.2f} M",
                f"{size['parameters_with_auxiliary'] / 1e6:,.2f} M",
                f"{size['multiply_adds'] / 1e6:,.0f} M",
            ),
        )
        for size in sizes
    ]


def _chooses(run: results.Run) -> bool:
    """Whether the search judges cells at its end, and has no alphas."""
    return bool(run.config["search"]["method"] == "single_path")


def _validation(run: results.Run) -> str:
    """The networks and images of a search's validation, in words."""
    if _chooses(run):
        return "half B on random cells, one a batch, with the batch's statistics"
    return "half B with running statistics"


def _no_cells(run: results.Run) -> str:
    """What stands in the place of a picture of the cells."""
    if "cell" in run.document:
        return str(run.document["cell"])
    if _chooses(run):
        return "No cell is chosen yet: cells are judged after the last step."
    return "No alphas are written yet; they come with the first epoch."


def render(
    run: results.Run,
    pictures: Mapping[str, bytes],
    sizes: Sequence[Mapping[str, Any]],
    drawn: Sequence[Graph],
) -> str:
    """The page.

    Args:
      run: the content of the workdir.
      pictures: "cells.svg", "alphas.png", "collapse.png", "curves.png"; those that exist so far.
      sizes: the networks of these cells at the sizes of an evaluation, with the keys name, cells,
        width, input_size, parameters, parameters_with_auxiliary, multiply_adds.
      drawn: the graphs of the cells; none if they cannot be drawn.
    """
    if run.is_training:
        facts = _training_facts(run)
        title, command = (
            "Compare with what was published",
            f"unnas-jax tables {markup.quoted(run.path)}",
        )
    else:
        facts = _search_facts(run)
        title, command = next_step.of_search(run.config, run.path)
    cells: dict[str, Any] = {}
    if drawn:
        head, rows = graphs.rows(drawn)
        cells = {
            "cells": rows,
            "cells_head": head,
            "cells_svg": markupsafe.Markup(markup.inline_svg(pictures["cells.svg"])),
            "concatenates": any(graph.concat for graph in drawn),
            "weighed": run.softmax,
        }
    versions = run.document.get("versions", {})
    return TEMPLATES.get_template("report.html").render(
        title=f"{run.config['task']['name']} on {run.config['dataset']['name']}",
        is_training=run.is_training,
        finished=run.finished,
        refresh_seconds=_REFRESH_SECONDS,
        path=run.path,
        warnings=run.warnings,
        facts=facts,
        skipped=run.skipped,
        **cells,
        cell=run.document.get("cell", ""),
        **_classes(run),
        no_cells="" if run.is_training else _no_cells(run),
        validation="" if run.is_training else _validation(run),
        alphas_png=pictures.get("alphas.png"),
        collapse_png=pictures.get("collapse.png"),
        first_cell="" if run.alphas is None else run.space.LABELS[min(run.space.LABELS)],
        collapse=() if run.is_training else collapse.words(run),
        curves_png=pictures["curves.png"],
        sizes=_sizes(sizes),
        next_title=title,
        next_command=command,
        config=json.dumps(run.config, indent=2),
        versions=[(False, row) for row in sorted(versions.items())],
    )
