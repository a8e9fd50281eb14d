"""Counts the parameters and multiply-adds of a config's network.

    unnas-jax complexity --config=configs/eval_in1k.py:darts_v2 [--json] [--layers]

prints its parameters and multiply-adds, by stem, cell and head; see `unnas_jax.layers.counting`.
With --time also the latency and the memory of a training's network on this device, --batch answers
at once.
They are those of an evaluation, on whole images where the config evaluates on whole images.

    unnas-jax complexity --config=sample_darts_cifar10 [--json] [--cells=20]

prints for every task of a sample what its trainings take: steps, images, network inputs,
parameters, multiply-adds (the means over the first --cells architectures) and FLOP.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags

from unnas_jax.commands import command_line
from unnas_jax.core.errors import UserError
from unnas_jax.data.registry import entry_of
from unnas_jax.layers.counting import AUXILIARY
from unnas_jax.spaces import latency
from unnas_jax.spaces.complexity import of_config
from unnas_jax.sweep import costs, sample, validation


def _table(counts: Mapping[str, Any], every_layer: bool) -> str:
    """The layers, or their sums by stem, cell and head, and the totals, as text."""
    rows: dict[str, list[int]] = {}
    auxiliary = 0
    for layer in counts["layers"]:
        module = layer["name"].split("/")[0]
        row = rows.setdefault(layer["name"] if every_layer else module, [0, 0])
        row[0] += layer["parameters"]
        row[1] += layer["multiply_adds"]
        auxiliary += layer["multiply_adds"] * (module == AUXILIARY)
    rows["total"] = [counts["parameters"], counts["multiply_adds"]]
    if auxiliary:
        both = [counts["parameters_with_auxiliary"], counts["multiply_adds"] + auxiliary]
        rows["total with auxiliary head"] = both
    column = max(map(len, rows)) + 2
    size, inputs = counts["input_size"], counts["inputs"]
    height, width = size if isinstance(size, list) else (size, size)
    lines = [
        f"width {counts['width']}, {inputs} input{'s' if inputs > 1 else ''} of "
        f"{height}x{width} pixels an answer",
        f"{'':{column}}{'parameters':>14}{'multiply-adds':>18}",
    ]
    lines += [f"{name:{column}}{a:>14,}{b:>18,}" for name, (a, b) in rows.items()]
    return "\n".join(lines)


def _of_sample(config: ml_collections.ConfigDict, cells: int) -> list[costs.TaskCost]:
    dataset = config.training.dataset.name
    if cells < 1:
        raise UserError(f"--cells={cells}: must be at least 1")
    if not entry_of(dataset).train_images:
        raise UserError(
            f"config.training.dataset.name={dataset!r}: how many images it has is known when it is "
            "opened only; count one of the trainings: --config=CONFIG of a training"
        )
    return costs.of_sample(config, sample.architectures_of(config), cells)


def _sample_table(found: Sequence[costs.TaskCost]) -> str:
    lines = [
        f"{'task':16}{'trainings':>10}{'steps each':>12}{'images each':>13}{'inputs an image':>17}"
        f"{'parameters':>13}{'multiply-adds an image':>24}{'FLOP of all':>13}"
    ]
    lines += [
        f"{cost.task:16}{cost.trainings:>10,}{cost.steps:>12,}{cost.images:>13,}{cost.inputs:>17g}"
        f"{cost.parameters:>13,.0f}{cost.multiply_adds:>24,.0f}{cost.flop:>13.2e}"
        for cost in found
    ]
    return "\n".join(lines)


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_boolean("json", False, "Print one JSON object.", flag_values=values)
    flags.DEFINE_boolean(
        "layers", False, "Print every layer, not only stem, cells and head.", flag_values=values
    )
    flags.DEFINE_integer(
        "classes", None, "The dataset's classes, where its name does not tell.", flag_values=values
    )
    flags.DEFINE_boolean(
        "time", False, "Measure latency and memory on this device.", flag_values=values
    )
    flags.DEFINE_integer("batch", 1, "Answers at once, with --time.", flag_values=values)
    flags.DEFINE_integer(
        "cells", 20, "Of a sample: how many architectures to count.", flag_values=values
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    with command_line.user_errors() as outcome:
        values = command_line.parse_config(arguments, _define, __doc__, samples=True)
        config = values.config
        if config.to_dict().get("experiment") == "sample":
            validation.validate(config)
            for name in ("layers", "time", "classes"):
                if values[name].present:
                    raise UserError(f"--{name}: is of one network; --config is that of a sample")
            found = _of_sample(config, values.cells)
            as_json = json.dumps([dataclasses.asdict(cost) | {"flop": cost.flop} for cost in found])
            print(as_json if values.json else _sample_table(found))
            return outcome.status
        if entry_of(config.dataset.name).takes_path and not config.dataset.path:
            config.dataset.path = "."  # Which nothing here opens.
        validation.validate(config)
        if values.batch < 1:
            raise UserError(f"--batch={values.batch}: must be at least 1")
        counts = of_config(config.to_dict(), values.classes)
        measured = {}
        if values.time:
            measured = latency.measure(config.to_dict(), values.classes, values.batch)
            counts["measured"] = measured
        print(json.dumps(counts) if values.json else _table(counts, values.layers))
        if measured and not values.json:
            print(
                f"{measured['device']}, {measured['batch']} at once: "
                f"{measured['milliseconds']:.2f} ms (a tenth of the calls over "
                f"{measured['milliseconds_90']:.2f}), {measured['answers_per_second']:,.1f} a "
                f"second, {measured['memory_bytes'] / 1e6:,.1f} MB"
            )
    return outcome.status
