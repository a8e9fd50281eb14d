"""The regression objective: its recipes, its steps, and that networks fit what they can fit."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.spaces.one_program import network201
from unnas_jax.layers.heads import StageHeads
from unnas_jax.spaces import stages
from unnas_jax.spaces.nasbench201 import space, spec
from unnas_jax.sweep.scores import programs, regression, weights
from unnas_jax.sweep.scores.regression import RECIPES
from unnas_jax.tasks.targets import Resized


class Copies(nn.Module):
    """A network without weights: every stage's features are the images."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, None]:
        for _ in range(3):
            stages.end(self, x)
        self.variable("batch_stats", "unused", jnp.zeros, ())
        self.param("unused", nn.initializers.zeros, ())
        return x, None


def recipe(**changes: Any) -> regression.Recipe:
    """The published one with small resized images as the only targets."""
    bases = ((Resized(1.0),),) * 3
    return dataclasses.replace(
        RECIPES["nasbench"], bases=bases, channels=(3, 3, 3), images=4, **changes
    )


def images(side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, side, side, 3)).astype(np.float32)


def test_the_published_recipes() -> None:
    """The facts of the paper's search on NAS-Bench-101 and on DARTS (its code's configs)."""
    nasbench, darts = RECIPES["nasbench"], RECIPES["darts"]
    assert nasbench.channels == (64, 48, 16) and darts.channels == (80, 32, 80)
    assert (nasbench.noise, nasbench.gaussian) == (0.1, False)
    assert (darts.noise, darts.gaussian) == (0.2, True)
    for one in RECIPES.values():
        assert (one.rate, one.momentum, one.decay, one.steps) == (0.1, 0.9, 4e-5, 100)
        assert one.weights == (0.25, 0.5, 1.0) and (one.images, one.side) == (16, 8)
        data = regression.batch(np.zeros((16, 32, 32, 3), np.float32), one, 0)
        assert [t.shape for t in data.targets] == [(16, 8, 8, c) for c in one.channels]
        levels = [sum(basis.level for basis in bases) for bases in one.bases]
        for target, level in zip(data.targets, levels, strict=True):
            assert 0 < float(jnp.abs(target).max()) <= level + 1e-5


def test_heads_that_see_the_target_fit_it() -> None:
    """A linear map of the image is what is asked for, and SGD finds it but for the noise."""
    one = recipe(noise=0.0, steps=150)
    data = regression.batch(images(), one, 0)
    network = Copies()
    variables = network.init(jax.random.key(0), data.images, False)
    losses = regression.loss_left(network, variables, data, one, 0, every=5)
    assert len(losses) == 30
    variance = 1.75 * float(np.var(data.targets[0]))
    assert losses[-1] < 0.02 * variance < losses[0]


def test_one_step_is_sgd_with_momentum_and_decay_of_kernels() -> None:
    """Against the gradient by JAX and the update by hand, over two steps."""
    one = recipe(noise=0.0, steps=2, decay=0.1)
    data = regression.batch(images(), one, 0)
    network = Copies()
    variables = network.init(jax.random.key(0), data.images, False)
    got = regression.loss_left(network, variables, data, one, 3)[-1]

    heads = StageHeads(one.channels, one.side)
    features = [data.images] * 3
    start = heads.lazy_init(jax.random.fold_in(jax.random.key(3), 0), features, train=False)
    params, statistics = start["params"], start["batch_stats"]
    velocity = jax.tree.map(jnp.zeros_like, params)

    def error(params: Any, statistics: Any, train: bool) -> Any:
        outputs, state = heads.apply(
            {"params": params, "batch_stats": statistics}, features, train, mutable=["batch_stats"]
        )
        parts = [jnp.mean((a - b) ** 2) for a, b in zip(outputs, data.targets, strict=True)]
        return 0.25 * parts[0] + 0.5 * parts[1] + parts[2], state["batch_stats"]

    @jax.jit
    def step(params: Any, statistics: Any, velocity: Any) -> Any:
        gradient, statistics = jax.grad(error, has_aux=True)(params, statistics, True)
        gradient = jax.tree.map(lambda g, p: g + 0.1 * p if p.ndim > 1 else g, gradient, params)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        return jax.tree.map(lambda p, v: p - 0.1 * v, params, velocity), statistics, velocity

    for _ in range(2):
        params, statistics, velocity = step(params, statistics, velocity)
    assert got == pytest.approx(float(error(params, statistics, False)[0]), rel=1e-4)


def test_a_cell_s_own_network_and_the_supernet_end_with_the_same_loss() -> None:
    one = recipe(steps=3, rate=0.02)
    data = regression.batch(images(8), one, 0)
    cell = spec.parse(
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"
    )
    program = space.program(network201(cell))
    many = programs.variables(program, 8, np.random.default_rng(0))
    drawn = weights.shapes(program.own, (8, 8, 3))
    own = weights.tree(weights.draw(drawn, np.random.default_rng(0)))
    expected = regression.loss_left(program.own, own, data, one, 0)
    got = regression.loss_left(program.network, many, data, one, 0)
    assert got == pytest.approx(expected, rel=1e-3)


def test_a_network_that_diverges_is_the_worst() -> None:
    one = recipe(steps=40, rate=1e6)
    data = regression.batch(images(), one, 0)
    network = Copies()
    variables = network.init(jax.random.key(0), data.images, False)
    assert regression.loss_left(network, variables, data, one, 0)[-1] == np.inf
