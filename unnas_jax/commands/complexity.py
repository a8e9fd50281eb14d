"""Counts the parameters and multiply-adds of a config's network.

    unnas-jax complexity --config=configs/eval_in1k.py:darts_v2 [--json] [--layers]

prints its parameters and multiply-adds, by stem, cell and head; see `unnas_jax.layers.counting`.
With --time also the latency and the memory of a training's network on this device, --batch answers
at once.
They are those of an evaluation, on whole images where the config evaluates on whole images.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from unnas_jax.commands import command_line
from unnas_jax.core.errors import UserError
from unnas_jax.data.registry import entry_of
from unnas_jax.layers.counting import AUXILIARY
from unnas_jax.spaces import latency
from unnas_jax.spaces.complexity import of_config
from unnas_jax.sweep import validation


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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    with command_line.user_errors() as outcome:
        values = command_line.parse_config(arguments, _define, __doc__)
        config = values.config
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
