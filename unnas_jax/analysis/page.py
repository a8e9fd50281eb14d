"""Writes the report of a search: one HTML page that needs nothing but itself."""

import base64
import html
import itertools
import json
import math
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from unnas_jax.analysis import results
from unnas_jax.spaces.darts import genotype as genotypes

_EVALUATIONS: Mapping[str, tuple[str, str]] = {
    "photos": ("eval_photos", "the photographs"),
    "cifar10": ("eval_cifar10", "CIFAR-10"),
    "cityscapes": ("eval_cityscapes", "Cityscapes"),
    "imagenet2012": ("eval_in1k", "ImageNet-1K"),
    "imagenet22k": ("eval_in1k", "ImageNet-1K"),
}
"""The recipe with which the cells found on a dataset are evaluated, and on what, in words."""

_REFRESH_SECONDS = 30  # How often a page that is still open reloads while the search runs.

_CSS = """
:root {
  color-scheme: light dark;
  --ink: #1c1f23; --soft: #5b6470; --line: #d9dde3; --page: #fbfbfa; --card: #ffffff;
  --accent: #0072b2; --good: #00704f; --wait: #9a5b00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e8ea; --soft: #a3abb5; --line: #3a4149; --page: #16191d; --card: #1f242a;
    --accent: #6cb9ea; --good: #4fd1a5; --wait: #f0b35a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 68rem;
  background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.8rem 0 .8rem; padding-bottom: .3rem;
     border-bottom: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 46rem; }
.soft { color: var(--soft); }
.state { font-weight: 600; }
.finished { color: var(--good); }
.running { color: var(--wait); }
dl.facts { display: flex; flex-wrap: wrap; margin: 1.5rem -.5rem 0; }
dl.facts div { flex: 1 1 11rem; margin: .5rem; padding: .8rem 1rem; background: var(--card);
               border: 1px solid var(--line); border-radius: .5rem; }
dl.facts dt { font-size: .8rem; color: var(--soft); }
dl.facts dd { margin: .1rem 0 0; font-size: 1.35rem; font-weight: 600;
              overflow-wrap: anywhere; }
dl.facts dd small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); }
figure { margin: 1rem 0; padding: .75rem; background: #ffffff; border: 1px solid var(--line);
         border-radius: .5rem; color: #1c1f23; }
figure { text-align: center; }
figure svg, figure img { display: inline-block; width: 100%; height: auto; }
figure img.wide { max-width: 54rem; }
figure img.narrow { max-width: 46rem; }
figcaption { text-align: left; font-size: .85rem; color: #5b6470; margin-top: .6rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; border-bottom: 1px solid var(--line);
         white-space: nowrap; }
thead th { font-size: .8rem; font-weight: 600; color: var(--soft); vertical-align: bottom; }
th.number, td.number { text-align: right; padding-right: 1.4rem; }
tr.first td { border-top: 1px solid var(--soft); }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { margin: .4rem 0 1rem; padding: .8rem 1rem; font-size: .85rem; background: var(--card);
      border: 1px solid var(--line); border-radius: .5rem; white-space: pre-wrap;
      overflow-wrap: anywhere; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: var(--accent); }
@media print {
  :root { --ink: #000; --soft: #444; --line: #bbb; --page: #fff; --card: #fff; --accent: #000;
          --good: #000; --wait: #000; }
  body { padding: 0; max-width: none; font-size: 10.5pt; }
  dl.facts div { flex-basis: 8rem; padding: .4rem .6rem; margin: .25rem; }
  figure, table, dl.facts { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}<title>{title}</title>
<style>{css}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _escape(value: Any) -> str:
    return html.escape(str(value))


def percent(share: float) -> str:
    """A share as a percentage with one digit, or two significant digits below one percent."""
    return f"{100 * share:.2g}%" if abs(share) < 0.01 else f"{100 * share:.1f}%"


def duration(seconds: float) -> str:
    """A time in the two units that matter, as in "1 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def training_seconds(run: results.Run) -> float | None:
    """The time in steps: images of every interval over its images a second; None if unknown.

    Compilation, validation and the time between launches are not in it. The images of a step are
    a batch of half A and, once the alphas move, one of half B.
    """
    total, step = 0.0, 0
    for record in run.records["train"]:
        rate = record.get("images_per_second")
        if rate:
            batches = (record["step"] - step) * (2 if "alpha_loss" in record else 1)
            total += batches * run.config["train"]["batch_size"] / rate
        step = record["step"]
    return total or None


def _facts(run: results.Run) -> str:
    config, train, validation = run.config, run.records["train"], run.records["validation"]
    facts: list[tuple[str, str, str]] = []
    if validation:
        last = validation[-1]
        against = "" if run.chance is None else f"chance {percent(run.chance)}, "
        facts.append(
            (
                "validation accuracy",
                percent(last["accuracy"]),
                f"{against}epoch {last['epoch']:.4g}, loss {last['loss']:.3f}",
            )
        )
    facts.append(("task", config["task"]["name"], ""))
    facts.append(("dataset", config["dataset"]["name"], config["dataset"].get("path", "")))
    facts.append(("seed", str(config["seed"]), ""))
    step, epoch = _position(run)
    planned = config["train"]["epochs"]
    facts.append(("steps", f"{step:,}", f"epoch {epoch:.4g} of {planned:g}"))
    seconds = training_seconds(run)
    if seconds is not None:
        left = float(train[-1].get("seconds_left", math.nan))
        going = not run.finished and math.isfinite(left)
        note = f"about {duration(left)} left" if going else "in steps, by images per second"
        facts.append(("time", duration(seconds), note))
    if run.records["start"]:
        start = run.records["start"][-1]
        number = start["devices"]
        images = f"{start['train_images']:,} + {start['validation_images']:,} images"
        devices = f"{number} {start['backend']} device{'s' if number != 1 else ''}"
        facts.append(("hardware", devices, images))
    cells = "".join(
        f"<div><dt>{_escape(name)}</dt><dd>{_escape(value)}"
        + (f"<small>{_escape(note)}</small>" if note else "")
        + "</dd></div>"
        for name, value, note in facts
    )
    return f'<dl class="facts">{cells}</dl>'


def _position(run: results.Run) -> tuple[int, float]:
    """The latest step and epoch that any file knows of."""
    known = [(record["step"], record["epoch"]) for record in run.records["train"]]
    if "step" in run.document and "epoch" in run.document:
        known.append((run.document["step"], run.document["epoch"]))
    step, epoch = max(known, default=(0, 0.0))
    return int(step), float(epoch)


def _table(
    head: Sequence[str],
    rows: Iterable[tuple[str, Sequence[str]]],
    numbers: Sequence[int] = (),
) -> str:
    """A table; every row comes with a class for its <tr>, cells are escaped here."""

    def cell(tag: str, i: int, text: str) -> str:
        align = ' class="number"' if i in numbers else ""
        return f"<{tag}{align}>{_escape(text)}</{tag}>"

    top = "".join(cell("th", i, text) for i, text in enumerate(head))
    body = "".join(
        f'<tr class="{name}">' + "".join(cell("td", i, t) for i, t in enumerate(row)) + "</tr>"
        for name, row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def _state(state: int) -> str:
    return ("cₖ₋₂", "cₖ₋₁")[state] if state < 2 else f"node {state - 2}"


def _genotype(
    genotype: genotypes.Genotype, weights: Callable[[str], Sequence[float | None]]
) -> str:
    columns = []
    for kind in ("normal", "reduce"):
        pairs, concat = getattr(genotype, kind), getattr(genotype, f"{kind}_concat")
        column = [
            (_state(source), operation, "" if weight is None else f"{weight:.3f}")
            for (operation, source), weight in zip(pairs, weights(kind), strict=True)
        ]
        columns.append((column, ", ".join(_state(s).removeprefix("node ") for s in concat)))
    (normal, normal_output), (reduce, reduce_output) = columns
    rows = []
    blank = ("", "", "")
    for k, (left, right) in enumerate(itertools.zip_longest(normal, reduce, fillvalue=blank)):
        name = f"node {k // 2}" if k % 2 == 0 else ""
        rows.append(("first" if k % 2 == 0 else "", (name, *left, *right)))
    output = ("output", normal_output, "concat", "", reduce_output, "concat", "")
    rows.append(("first", output))
    head = ("", "normal cell", "operation", "weight", "reduction cell", "operation", "weight")
    return _table(head, rows, numbers=(3, 6))


def _sizes(sizes: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            "",
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
    head = (
        "network",
        "cells",
        "width",
        "input",
        "parameters",
        "with auxiliary head",
        "multiply-adds",
    )
    return _table(head, rows, numbers=range(1, 7))


def _inline_svg(picture: bytes) -> str:
    """The <svg> element alone, without a fixed size, so that the page scales it."""
    text = picture.decode("utf-8")
    text = text[text.index("<svg") :]
    # The metadata names vocabularies by address, which a self-contained page has no use for.
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1).replace(
        "<svg", '<svg role="img" aria-label="The two cells as graphs"', 1
    )


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{_escape(caption)}</figcaption></figure>"


def _png(picture: bytes, alt: str, css_class: str = "") -> str:
    data = base64.b64encode(picture).decode("ascii")
    return f'<img class="{css_class}" alt="{_escape(alt)}" src="data:image/png;base64,{data}">'


def next_step(config: Mapping[str, Any], workdir: str) -> tuple[str, str]:
    """What to do with the cells of a search next: a title and a command.

    Args:
      config: the search's, as a dict.
      workdir: its workdir.
    """
    dataset = config["dataset"]
    name = dataset["name"].removeprefix("tfds:")
    recipe, words = _EVALUATIONS.get(name, ("eval_folder", f"{name}, whose images need labels"))
    flags = [f"--config=configs/{recipe}.py:{workdir}/genotype.json"]
    if name == "folder":
        words = "the folder, with a directory for each class"
        flags.append(f"--config.dataset.path={dataset['path']}")
    elif recipe == "eval_folder":
        flags.append(f"--config.dataset.name={dataset['name']}")
    if dataset.get("data_dir"):
        flags.append(f"--config.dataset.data_dir={dataset['data_dir']}")
    flags.append(f"--workdir={workdir}/{recipe}")
    title = f"Evaluate the discovered network on {words}"
    return title, shlex.join(["python", "main.py", *flags])


def render(
    run: results.Run,
    pictures: Mapping[str, bytes],
    sizes: Sequence[Mapping[str, Any]],
    weights: Callable[[str], Sequence[float | None]],
) -> str:
    """The page.

    Args:
      run: what the workdir says.
      pictures: "cells.svg", "alphas.png" and "curves.png"; those that exist so far.
      sizes: the networks of these cells at the sizes of an evaluation, with the keys name, cells,
        width, input_size, parameters, parameters_with_auxiliary, multiply_adds.
      weights: gives for "normal" and "reduce" the weight of every pair, None where unknown.
    """
    title = f"{run.config['task']['name']} on {run.config['dataset']['name']}"
    state = "finished" if run.finished else "running"
    word = "finished" if run.finished else "not finished: running, or interrupted"
    parts = [
        f"<h1>Architecture search: {_escape(title)}</h1>",
        f'<p class="soft"><span class="state {state}">{word}</span> · '
        f"<code>{_escape(run.path)}</code></p>",
        _facts(run),
    ]
    if run.skipped:
        plural = "s" if run.skipped > 1 else ""
        parts.append(
            f'<p class="soft">{run.skipped} unreadable line{plural} of metrics.jsonl skipped: '
            "the search was killed while it wrote.</p>"
        )
    parts.append("<h2>Cells</h2>")
    if run.genotype is None:
        parts.append("<p>No alphas are written yet; they come with the first epoch.</p>")
    else:
        cells = _inline_svg(pictures["cells.svg"])
        note = "Thickness and number: the softmax weight of the operation on its edge. "
        caption = (note if run.softmax else "") + "Gray: what the output concatenates."
        parts += [_figure(cells, caption), _genotype(run.genotype, weights)]
    if "alphas.png" in pictures:
        parts += [
            "<h2>How the operations compete</h2>",
            _figure(
                _png(pictures["alphas.png"], "Operation weights of every edge by epoch", "wide"),
                "The softmax weights of every edge. Shaded: the two edges that each node keeps.",
            ),
        ]
    parts += [
        "<h2>Curves</h2>",
        _figure(
            _png(pictures["curves.png"], "Loss, accuracy and learning rate by epoch", "narrow"),
            "Half A of the training images trains the weights, half B the alphas. Validation: "
            "half B with running statistics.",
        ),
    ]
    if sizes:
        parts += ["<h2>The discovered network at evaluation sizes</h2>", _sizes(sizes)]
    parts.append("<h2>Next</h2>")
    name, command = next_step(run.config, run.path)
    parts.append(f"<p>{_escape(name)}:</p><pre>{_escape(command)}</pre>")
    config = json.dumps(run.config, indent=2)
    versions = run.document.get("versions", {})
    parts += [
        "<h2>How it was made</h2>",
        f"<details><summary>Config</summary><pre>{_escape(config)}</pre></details>",
    ]
    if versions:
        rows = [("", (name, str(version))) for name, version in sorted(versions.items())]
        parts.append(
            "<details><summary>Versions</summary>"
            + _table(("package", "version"), rows)
            + "</details>"
        )
    refresh = f'<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">\n'
    return _PAGE.format(
        refresh="" if run.finished else refresh,
        title=_escape(title),
        css=_CSS,
        body="\n".join(parts),
    )
