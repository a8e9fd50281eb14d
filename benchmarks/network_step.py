"""Time of a training step of discrete networks, here and in PyTorch, with the same weights.

    python benchmarks/network_step.py
    python benchmarks/network_step.py --sizes=darts-16,nasbench101-16 --only=here,torch --turns=9

A step is forward, backward and SGD on 32x32 images, as trainings take it. `here` is the step of
`unnas_jax.learning.trainer`; `torch` an eager one (channels last) of the same network,
`torch_compiled` the same through `torch.compile`. Each has a process of its own, which starts as
programs of its kind do: in one process their threads and their use of the memory would disturb
each other. First all must find the same loss and the same new parameters.

A JSON line for each size: of each, images_per_s and step_s (median; they take turns of some steps
in a row, one works while the others wait, so that a machine whose speed drifts is fair to all),
cpu_s (of all threads of its process in a step, median), peak_mb (the most memory that its process
ever had: imports and compilation included, compilers in processes of their own not; the processes
of PyTorch import jax, too, some 0.2 GB) and compile_s (of PyTorch the first step); `here` also
trace_s and temp_bytes (as XLA plans it). `ratio` is images_per_s here over that of each other one,
from the median over turns of the quotient of times. Only an idle machine tells it: beside another
busy process PyTorch's steps were seen to take many times as long, those here two to three times.
That cpu_s is not above step_s, on more than one core, is a sign of it.
"""

import argparse
import contextlib
import importlib.util
import json
import pathlib
import statistics
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

# Not jax, which the processes import when they have made ready for it; and what this one takes of
# memory before it starts them counts as theirs.
import numpy as np  # noqa: E402

from benchmarks import turns  # noqa: E402
from unnas_jax.commands import command_line  # noqa: E402
from unnas_jax.core import memory  # noqa: E402

# Three 3x3 and two 1x1 convolutions, each fed by the one before.
_CHAIN = (
    "0100000-0010000-0001000-0000100-0000010-0000001-0000000:"
    "conv3x3,conv1x1,conv3x3,conv1x1,conv3x3"
)
# As many operations side by side, and a pooling: the best cell of the benchmark's authors.
_BEST = (
    "0111010-0000001-0000001-0000100-0000001-0000001-0000000:"
    "conv1x1,conv3x3,conv3x3,conv3x3,maxpool3x3"
)


def _bench(cell: str, width: int) -> dict[str, Any]:
    network = {"space": "nasbench101", "genotype": cell, "stacks": 3, "modules": 1}
    return {**network, "width": str(width)}


def _darts(width: int, cells: int) -> dict[str, Any]:
    return {"space": "darts", "genotype": "darts_v2", "cells": cells, "width": str(width)}


SIZES: dict[str, tuple[dict[str, Any], int]] = {
    "nasbench101-16": (_bench(_CHAIN, 16), 128),
    "nasbench101-64": (_bench(_CHAIN, 64), 64),
    "nasbench101-128": (_bench(_CHAIN, 128), 16),
    "nasbench101-best-32": (_bench(_BEST, 32), 64),
    "darts-16": (_darts(16, 8), 64),
    "darts-36": (_darts(36, 3), 32),
}
"""The section `network` of a config, and the images of a batch."""

FORMS = ("here", "torch", "torch_compiled")

_IN_A_ROW = 3
# PyTorch's threads spin for some time after a step.
_REST_S = 0.1


def _make(form: str, network: dict[str, Any], batch_size: int, first: Any = None) -> Any:
    """One of the forms, in its process; '': only the network, whose weights are the first."""
    from benchmarks import network_sides

    if form == "here":
        memory.dispatch_at_once()  # As trainings do.
        return network_sides.Here(network, batch_size)
    if form.startswith("torch"):
        compiled = form == "torch_compiled"
        return network_sides.Torch(network, batch_size, first, compiled=compiled)
    return network_sides.Network(network, batch_size)


def _variables(form: str) -> dict[str, str]:
    """The variables with which a form's process starts: `launch/local.sh`'s, none for PyTorch."""
    return {memory.VARIABLE: memory.TUNABLES if form == "here" else ""}


def check(first: dict[str, np.ndarray], sides: dict[str, turns.Process]) -> dict[str, float]:
    """Takes a step of each.

    Returns:
      The seconds of each.

    Raises:
      AssertionError: losses or new parameters differ.
    """
    losses, changes, seconds = {}, {}, {}
    for name, side in sides.items():
        step = side.turn("step")
        losses[name], seconds[name] = step.result, step.wall_s
        found = side.turn("tensors").result
        # PyTorch's running variance is the unbiased one.
        changes[name] = {
            key: found[key] - value
            for key, value in first.items()
            if not key.endswith(("running_var", "num_batches_tracked"))
        }
    reference, *others = sides
    for name in others:
        np.testing.assert_allclose(losses[name], losses[reference], rtol=1e-4, err_msg=name)
        for key, change in changes[reference].items():
            # In float32 rounding decides which side of a ReLU some values are on: deep networks'
            # gradients in both forms are some percent away from those in float64.
            difference = np.linalg.norm(changes[name][key] - change) / np.linalg.norm(change)
            assert difference < 0.2, f"{name}: {key} changes by something else ({difference:.3f})"
    return seconds


def _turn(side: turns.Process) -> list[turns.Turn]:
    """Some steps in a row, as in a training; the first, which wakes all threads, is left out."""
    taken = [side.turn("step") for _ in range(1 + _IN_A_ROW)]
    time.sleep(_REST_S)
    return taken[1:]


def measure(size: str, forms: list[str], count: int) -> dict[str, Any]:
    """Times some forms by `count` turns each, after a check that they compute the same."""
    network, batch_size = SIZES[size]
    with turns.started("first weights", _make, "", network, batch_size) as weights:
        first = weights.turn("tensors").result
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(
                turns.started(
                    name, _make, name, network, batch_size, first, variables=_variables(name)
                )
            )
            for name in forms
        }
        first_s = check(first, sides)
        steps: dict[str, list[turns.Turn]] = {name: [] for name in forms}
        for _ in range(count):
            for name, side in sides.items():
                steps[name] += _turn(side)
        facts = {name: side.turn("facts").result for name, side in sides.items()}
    wall = {name: [turn.wall_s for turn in taken] for name, taken in steps.items()}
    rows = {
        name: {
            "images_per_s": round(batch_size / statistics.median(wall[name]), 1),
            "step_s": round(statistics.median(wall[name]), 4),
            "cpu_s": round(statistics.median(turn.cpu_s for turn in steps[name]), 4),
            "peak_mb": steps[name][-1].peak_mb,
            **({"compile_s": round(first_s[name], 2)} | facts[name]),
        }
        for name in forms
    }
    ratio = {
        name: round(
            statistics.median(b / a for a, b in zip(wall["here"], wall[name], strict=True)), 2
        )
        for name in forms
        if name != "here" and "here" in forms
    }
    return {"size": size, "batch": batch_size, **rows, "ratio": ratio}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--sizes", default=",".join(SIZES), help="some of " + ",".join(SIZES))
    parser.add_argument("--only", default=",".join(FORMS), help="some of " + ",".join(FORMS))
    parser.add_argument("--turns", type=int, default=5, help="of each, of three timed steps")
    options = parser.parse_args()
    if options.turns < 1:
        parser.error(f"--turns={options.turns}: at least 1")
    for key, known in (("sizes", SIZES), ("only", FORMS)):
        given = getattr(options, key).split(",")
        if unknown := [name for name in given if name not in known]:
            parser.error(f"--{key}={unknown[0]}: none of {', '.join(known)}")
        setattr(options, key, given)
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed: that side is left out (pip install '.[torch]')")
        options.only = [name for name in options.only if not name.startswith("torch")]
    if not options.only:
        parser.error("--only: nothing is left to time; add here")
    return options


def main() -> int:
    """Measures and prints; returns the exit status."""
    options = _options()
    with command_line.user_errors() as outcome:
        for size in options.sizes:
            print(json.dumps(measure(size, options.only, options.turns)), flush=True)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
