"""A forward pass, gradients and twenty steps of training for the published genotypes."""

import os
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny_training
from unnas_jax.config.sections import Training
from unnas_jax.core import sharding
from unnas_jax.layers.heads import ImageHead
from unnas_jax.learning import trainer
from unnas_jax.spaces.darts.network import Network
from unnas_jax.spaces.darts.published import GENOTYPES

# Together they have every operation of the others. UNNAS_LONG_TESTS=1: all of them.
FEW = ("amoebanet", "pdarts", "unnas_in1k_rot")
NAMES = GENOTYPES if os.environ.get("UNNAS_LONG_TESTS") else FEW


def test_these_have_every_operation() -> None:
    def operations(names: Iterable[str]) -> set[str]:
        cells = (GENOTYPES[name] for name in names)
        return {pair[0] for cell in cells for pair in (*cell.normal, *cell.reduce)}

    assert operations(FEW) == operations(GENOTYPES)


@pytest.mark.parametrize("name", NAMES)
def test_trains(name):
    config = tiny_training.config(batch_size=4)
    config.weights.update(learning_rate=0.05, momentum=0.9)
    # Two cells, a reducing one and a normal one: compiling them is what takes the time.
    network = Network(GENOTYPES[name], 4, 2, "cifar", head=ImageHead(3), single_reduction=True)
    mesh = sharding.data_mesh(jax.devices()[:1])
    inputs = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    steps = trainer.build_steps(
        Training.of(config.to_dict()), network, tiny_training.Plain(), mesh, 2, inputs
    )
    state = steps.init([0])
    start = jax.device_get(state.params)
    batch = trainer.stack_seeds([tiny_training.images(4)], mesh)
    losses = []
    for _ in range(20):
        state, sums = steps.train(state, batch)
        losses.append(float(sums["loss"][0]) / 4)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state.params, start)
    assert all(change > 0 for change in jax.tree.leaves(moved))
    assert losses[-1] < 0.5 * losses[0]
