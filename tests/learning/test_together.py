"""Cells trained together in one program, and one alone in it, against trainings of their own."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests import tiny_training
from unnas_jax.config.sections import Training
from unnas_jax.core import sharding
from unnas_jax.layers.blocks import ReluConvBN
from unnas_jax.learning import optim, trainer
from unnas_jax.spaces.nasbench201 import network, spec, supernet
from unnas_jax.spaces.programs import Path, Program

CHANNELS, SEEDS = 3, (4, 5)
CELLS = ("nor_conv_3x3", "nor_conv_1x1")


class _Own(nn.Module):
    """One operation and a linear layer; whole networks are compared with the spaces."""

    operation: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, drop_path: Any = None) -> Any:
        kernel = (network.KERNELS[self.operation],) * 2
        x = ReluConvBN(CHANNELS, kernel, dtype=x.dtype, name="edge")(x, train)
        return nn.Dense(3, name="linear")(x.mean((1, 2))), None


class _Shared(nn.Module):
    """The same with the operation as a variable."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> Any:
        chosen = self.variable(supernet.COLLECTION, "operation", jnp.zeros, (), jnp.int32).value
        x = supernet.edge(CHANNELS, x.dtype, "edge")(x, chosen, train)
        return nn.Dense(3, name="linear")(x.mean((1, 2))), None


class _Exact(tiny_training.Plain):
    """Examples in float64: rounding must not grow over the steps."""

    def examples(self, key: jax.Array, batch: Any, *, train: bool) -> Any:
        found = super().examples(key, batch, train=train)
        return found.replace(inputs=found.inputs.astype(jnp.float64))


def program(operation: str) -> Program:
    def place(path: Path) -> Path:
        return ("edge", operation, *path[1:]) if path[0] == "edge" else path

    number = np.int32(spec.OPERATIONS.index(operation))
    cell = {supernet.COLLECTION: {"operation": number}}
    return Program(_Shared(), _Own(operation), cell, place)


def trained(module: nn.Module, seeds: Any, programs: Any = (), form: str = "grouped") -> Any:
    """The state after three steps, the last batches' statistics, the sums of an evaluation.

    Everything that looks at more than one parameter or step is on.
    """
    c = tiny_training.config(ema=0.5)
    c.weights.update(momentum=0.9, weight_decay=0.01, clip_norm=0.5)
    mesh = sharding.data_mesh(jax.devices()[:1])
    inputs = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    steps = trainer.build_steps(
        Training.of(c.to_dict()), module, _Exact(), mesh, 2, inputs, form=form
    )
    state = steps.init(seeds, programs)
    described = jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), (state, steps.shapes(len(seeds)))
    )
    assert described[0] == described[1]
    with jax.enable_x64(True):
        state = jax.tree.map(
            lambda x: jnp.asarray(x, jnp.float64) if x.dtype == jnp.float32 else x, state
        )
        for step in range(3):
            batches = [tiny_training.images(seed=10 * seed + step) for seed in seeds]
            state, _ = steps.train(state, trainer.stack_seeds(batches, mesh))
        statistics = steps.statistics(state, trainer.stack_seeds(batches, mesh), 0)
        sums = steps.evaluate(state, sharding.to_devices(tiny_training.images(seed=99), mesh), 0)
        return jax.device_get((state, statistics, sums))


@functools.cache
def own(number: int) -> Any:
    return trained(program(CELLS[number]).own, [SEEDS[number]])


@pytest.mark.parametrize("form", ["alone", "grouped", "products"])
def test_cells_in_one_program_train_as_each_by_its_own(form: str) -> None:
    numbers, form = ([1], "grouped") if form == "alone" else ([0, 1], form)
    programs = [program(CELLS[number]) for number in numbers]
    found = trained(_Shared(), [SEEDS[number] for number in numbers], programs, form)
    states, statistics, sums = found
    for k, number in enumerate(numbers):
        alone, own_statistics, own_sums = own(number)
        for one, many in (
            (alone.params, states.params),
            (alone.batch_stats, states.batch_stats),
            (alone.average["params"], states.average["params"]),
            (alone.average["batch_stats"], states.average["batch_stats"]),
            (own_statistics, statistics),
        ):
            flat = traverse_util.flatten_dict(many)
            for path, leaf in traverse_util.flatten_dict(one).items():
                got = flat[programs[k].place(path)][k]
                np.testing.assert_allclose(got, leaf[0], 1e-5, 1e-6, err_msg=str(path))
        for name, value in own_sums.items():
            np.testing.assert_allclose(sums[name][k], value[0], 1e-5)
        # What the cell lacks begins at 0 and stays there.
        taken = {programs[k].place(path) for path in traverse_util.flatten_dict(alone.params)}
        for path, leaf in traverse_util.flatten_dict(states.params).items():
            assert path in taken or not np.any(leaf[k]), path


@pytest.mark.parametrize(
    ("name", "true"), [("sgd", True), ("adamw", True), ("lamb", True), ("adafactor", False)]
)
def test_optimizers_that_see_zeros(name: str, true: bool) -> None:
    """Adafactor scales a step by the mean of all squares, also of zeros."""
    c = tiny_training.config()
    c.weights.optimizer = name
    section = Training.of(c.to_dict()).weights
    assert optim.ignores_zeros(section) is true
