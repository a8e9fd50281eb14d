"""Time of a training step of discrete networks, here and in PyTorch, with the same weights.

    python benchmarks/network_step.py
    python benchmarks/network_step.py --sizes=darts-16,nasbench101-16 --only=here,torch --steps=9

A step is forward, backward and SGD on 32x32 images, as trainings take it. `here` is the step of
`unnas_jax.learning.trainer`; `torch` an eager one (channels last) of the same network,
`torch_compiled` the same through `torch.compile`. First all must find the same loss and the same
new parameters.

A JSON line for each size: of each, images_per_s and step_s (median; they take turns, so that a
machine whose speed drifts is fair to all), cpu_s (of all threads of the process, median) and
compile_s; `here` also trace_s and temp_bytes (as XLA plans it). `ratio` is images_per_s here over
that of each other one, from the median over turns of the quotient of times.
"""

import argparse
import dataclasses
import importlib.util
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax  # noqa: E402
import numpy as np  # noqa: E402

from unnas_jax import convert  # noqa: E402
from unnas_jax.commands import command_line  # noqa: E402
from unnas_jax.config import schema as config  # noqa: E402
from unnas_jax.config.sections import TaskConfig, Training
from unnas_jax.core import sharding  # noqa: E402
from unnas_jax.data import Dataset  # noqa: E402
from unnas_jax.learning import trainer  # noqa: E402
from unnas_jax.runs import validation  # noqa: E402
from unnas_jax.spaces import networks  # noqa: E402
from unnas_jax.spaces import registry as spaces  # noqa: E402
from unnas_jax.tasks import base  # noqa: E402
from unnas_jax.tasks.base import example_shapes  # noqa: E402
from unnas_jax.tasks.classification import Classification  # noqa: E402

CLASSES, CROP = 10, 32

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


class Plain(Classification):
    """Classification of the images as they are."""

    def examples(self, key: jax.Array, batch: base.Batch, *, train: bool) -> base.Examples:
        """One example per image."""
        return super().examples(key, batch, train=False)


def _config(network: dict[str, Any], batch_size: int) -> dict[str, Any]:
    c = config.training()
    c.seeds = 1
    c.dataset.name = "tfds:random"
    c.task.label_smoothing = 0.0
    c.input.update(crop=CROP, resize=CROP)
    c.network.update(stem="cifar", auxiliary_weight=0.0)
    c.network.update(network)
    c.weights.update(learning_rate=0.05, warmup_epochs=0)
    c.train.batch_size = batch_size
    validation.validate(c)
    plain: dict[str, Any] = c.to_dict()
    return plain


@dataclasses.dataclass
class _Side:
    """One of the forms.

    Attributes:
      step: takes a step; the loss before it.
      tensors: the parameters and statistics now, by the names of PyTorch's.
      facts: what is reported besides times.
    """

    step: Callable[[], float]
    tensors: Callable[[], dict[str, np.ndarray]]
    facts: dict[str, float]


class _Setting:
    """A network, its first state and a batch."""

    def __init__(self, network: dict[str, Any], batch_size: int) -> None:
        self.config = _config(network, batch_size)
        dataset = Dataset("random", {}, CLASSES, ())
        task = Plain.create(TaskConfig.of(self.config), dataset)
        self.task, self.mean, self.std = task, dataset.mean, dataset.std
        self.mesh = sharding.data_mesh(jax.devices()[:1])
        inputs = example_shapes(self.config, task).inputs
        module = networks.build_network(self.config, task)
        self.steps = trainer.build_steps(
            Training.of(self.config), module, task, self.mesh, 1000, inputs
        )
        self.state = self.steps.init([0])
        rng = np.random.default_rng(0)
        self.batch = {
            "image": rng.integers(0, 256, (batch_size, CROP, CROP, 3), np.uint8),
            "label": rng.integers(0, CLASSES, batch_size).astype(np.int32),
        }
        self.first = self._tensors(self.state)

    def _tensors(self, state: trainer.TrainState) -> dict[str, np.ndarray]:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        one = jax.tree.map(lambda leaf: leaf[0], jax.device_get(variables))
        return convert.params_to_torch(one, self.config)

    def here(self) -> _Side:
        """The step of trainings of one seed."""
        start = time.perf_counter()
        lowered = trainer.lower(Training.of(self.config), self.task, self.steps, 1, self.mesh)
        traced = time.perf_counter()
        program = lowered.compile()
        facts = {
            "trace_s": round(traced - start, 2),
            "compile_s": round(time.perf_counter() - traced, 2),
            "temp_bytes": program.memory_analysis().temp_size_in_bytes,
        }
        batch = trainer.stack_seeds([self.batch], self.mesh)

        def step() -> float:
            self.state, sums = program(self.state, batch)
            return float(sums["loss"].sum() / sums["count"].sum())

        return _Side(step, lambda: self._tensors(self.state), facts)

    def torch(self, *, compiled: bool) -> _Side:
        """The step in PyTorch."""
        import torch

        from benchmarks import torch_networks

        section = self.config["network"]
        cells = spaces.SPACES[section["space"]].resolve(section["genotype"])
        model = torch_networks.of_config(self.config, cells, CLASSES, self.first)
        run = torch_networks.training_step(
            model, self.config, self.mean, self.std, compiled=compiled
        )
        images = torch.tensor(self.batch["image"])
        labels = torch.tensor(self.batch["label"], dtype=torch.long)

        def tensors() -> dict[str, np.ndarray]:
            names = dict(zip(model.state_dict(), self.first, strict=True))
            return {names[name]: x.numpy().copy() for name, x in model.state_dict().items()}

        return _Side(lambda: run(images, labels), tensors, {})


def check(first: dict[str, np.ndarray], sides: dict[str, _Side]) -> None:
    """Takes a step of each; raises `AssertionError` if losses or new parameters differ."""
    losses, changes = {}, {}
    for name, side in sides.items():
        start = time.perf_counter()
        losses[name] = side.step()
        side.facts.setdefault("compile_s", round(time.perf_counter() - start, 2))
        found = side.tensors()
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


def measure(size: str, forms: list[str], turns: int) -> dict[str, Any]:
    """Times some forms by turns, after a check that they compute the same."""
    network, batch_size = SIZES[size]
    setting = _Setting(network, batch_size)
    make: dict[str, Callable[[], _Side]] = {
        "here": setting.here,
        "torch": lambda: setting.torch(compiled=False),
        "torch_compiled": lambda: setting.torch(compiled=True),
    }
    sides = {name: make[name]() for name in forms}
    check(setting.first, sides)
    wall: dict[str, list[float]] = {name: [] for name in forms}
    cpu: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(turns + 1):
        for name, side in sides.items():
            start = time.perf_counter(), time.process_time()
            side.step()
            if turn:  # The first one warms up.
                wall[name].append(time.perf_counter() - start[0])
                cpu[name].append(time.process_time() - start[1])
    rows = {
        name: {
            "images_per_s": round(batch_size / statistics.median(wall[name]), 1),
            "step_s": round(statistics.median(wall[name]), 4),
            "cpu_s": round(statistics.median(cpu[name]), 4),
            **side.facts,
        }
        for name, side in sides.items()
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
    parser.add_argument("--steps", type=int, default=9, help="timed steps of each")
    options = parser.parse_args()
    for key, known in (("sizes", SIZES), ("only", FORMS)):
        given = getattr(options, key).split(",")
        if unknown := [name for name in given if name not in known]:
            parser.error(f"--{key}={unknown[0]}: none of {', '.join(known)}")
        setattr(options, key, given)
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed: that side is left out (pip install '.[torch]')")
        options.only = [name for name in options.only if not name.startswith("torch")]
    return options


def main() -> int:
    """Measures and prints; returns the exit status."""
    options = _options()
    with command_line.user_errors() as outcome:
        for size in options.sizes:
            print(json.dumps(measure(size, options.only, options.steps)), flush=True)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
