"""Tests of PC-DARTS: closed forms, sizes, mistakes."""

import importlib

import jax
import numpy as np
import pytest

from tests import tiny
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.methods import registry
from unnas_jax.methods.base import Setting
from unnas_jax.methods.pc_darts import PCDarts, edge_weights
from unnas_jax.runs import validation
from unnas_jax.spaces import complexity
from unnas_jax.tasks import registry as tasks


def test_edges_compete_for_their_node() -> None:
    betas = np.array([0, 1, 0, 1, 2, 3, 3, 3, 3, 0, 0, 0, 0, 0], np.float32)
    nodes = [0, 0, 1, 1, 1, *[2] * 4, *[3] * 5]
    expected = [0.26894, 0.73106, 0.09003, 0.24473, 0.66524, *[0.25] * 4, *[0.2] * 5]
    np.testing.assert_allclose(edge_weights(betas, nodes), expected, atol=1e-5)


def method(**options: float) -> PCDarts:
    config = tiny.config(epochs=10)
    config.network.update(width=8, partial_channels=2)
    registry.choose(config, "pc_darts")
    config.method.update(options)
    validation.validate(config)
    c = config.to_dict()
    task = tasks.create(c, tiny.dataset())
    mesh = sharding.data_mesh(jax.devices()[:1])
    return PCDarts(Setting(MethodConfig.of(c), task, mesh, steps_per_epoch=3))


def test_the_cells_are_those_of_products() -> None:
    """With equal alphas the first operation but `none` wins, on the edges of the largest betas."""
    alphas = {kind: np.zeros((5, 8)) for kind in ("normal", "reduce")}
    betas = {f"beta_{kind}": np.array([0, 1, 0, 1, 2]) for kind in ("normal", "reduce")}
    made = method()
    weights = made.mixing({**alphas, **betas})["normal"]
    np.testing.assert_allclose(weights.sum(1), [0.2689, 0.7311, 0.09, 0.2447, 0.6652], atol=1e-4)
    cells = made.cells({**alphas, **betas})
    assert cells.normal[2:] == (("max_pool_3x3", 2), ("max_pool_3x3", 1))
    # A strong `none` takes weight from an edge's others, although it is never chosen itself.
    alphas["normal"][4, 0] = 5
    assert made.cells({**alphas, **betas}).normal[2:] == (("max_pool_3x3", 1), ("max_pool_3x3", 0))
    assert set(made.initial_alphas(jax.random.key(0))) == {*alphas, *betas}


def test_the_warm_up_of_imagenet() -> None:
    rates = [float(method(warmup_epochs=5).learning_rate(3 * epoch)) for epoch in range(10)]
    cosine = 0.05 * (1 + np.cos(np.pi * np.arange(10) / 10)) / 2
    warm = np.minimum((np.arange(10) + 1) / 5, 1)
    np.testing.assert_allclose(rates, cosine * warm, rtol=1e-5)


@pytest.mark.parametrize(
    ("recipe", "parameters"), [("pcdarts_cifar10", 299_578), ("pcdarts_in1k", 956_512)]
)
def test_the_supernet_has_the_published_size(recipe: str, parameters: int) -> None:
    config = importlib.import_module(f"configs.{recipe}").get_config()
    assert complexity.of_config(config.to_dict())["parameters"] == parameters


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixing": "sigmoid"}, "config.method.mixing='sigmoid': the edges' weights"),
        ({"warmup_epochs": -1}, "config.method.warmup_epochs=-1: must be at least 0"),
        ({"warmup_epoch": 1}, "config.method.warmup_epoch: did you mean 'warmup_epochs'"),
    ],
)
def test_mistakes(change: dict, message: str) -> None:
    config = tiny.config()
    registry.choose(config, "pc_darts")
    with config.unlocked():
        config.method.update(change)
    with pytest.raises(UserError, match=message):
        validation.validate(config)
