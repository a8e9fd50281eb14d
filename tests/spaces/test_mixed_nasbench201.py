"""NAS-Bench-201's mixed supernet: two forms, the discrete network as a special case, refusals."""

import functools
import types
from typing import Any

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from tests import reference, tiny
from tests.spaces import quick
from unnas_jax.config import schema
from unnas_jax.config.sections import MethodConfig, SupernetSection
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.methods.base import Setting
from unnas_jax.methods.darts import Darts
from unnas_jax.runs import validation
from unnas_jax.spaces import mixed
from unnas_jax.spaces.nasbench201 import mixed as door
from unnas_jax.spaces.nasbench201 import network, spec
from unnas_jax.spaces.nasbench201.mixed_supernet import KIND, Cell, Supernet
from unnas_jax.spaces.nasbench201.spec import EDGES, OPERATIONS, Spec
from unnas_jax.tasks import registry as tasks

KEY = jax.random.key(0)
CONVOLUTIONS = ("nor_conv_1x1", "nor_conv_3x3")


def of_sources(params: Any) -> dict[str, Any]:
    """The parameters of a dense cell, from those of one that is computed edge by edge."""
    joined: dict[str, Any] = {}
    for source in range(3):
        joined[f"edges_{source}"] = {}
        for name in CONVOLUTIONS:
            kernels = [
                params[f"edge_{source}_{target}"][name]["convolution"]["conv"]["kernel"]
                for target in range(source + 1, 4)
            ]
            joined[f"edges_{source}"][name] = {"conv": {"kernel": np.concatenate(kernels, -1)}}
    return joined


@pytest.mark.parametrize("parts, auxiliary", [(1, False), (2, True)])
def test_both_forms_compute_the_same(parts: int, auxiliary: bool) -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        settings: Any = {"parts": parts, "auxiliary_skip": auxiliary, "dtype": jnp.float64}
        plain, fused = (Cell(4, dense, **settings) for dense in (False, True))
        x = jnp.asarray(rng.normal(size=(2, 4, 4, 4)))
        weights = jnp.asarray(rng.dirichlet(np.ones(5), 6))
        skips = {"auxiliary": jnp.asarray(0.3)}
        params, plain_stats, stats = (
            reference.random_like(
                jax.eval_shape(functools.partial(cell.init, train=True), KEY, x, weights)[kind], 1
            )
            for cell, kind in ((plain, "params"), (plain, "batch_stats"), (fused, "batch_stats"))
        )

        def loss(cell: Cell, params: Any, statistics: Any, weights: Any) -> Any:
            own = {"params": params, "batch_stats": statistics}
            y, _ = cell.apply(own, x, weights, True, skips, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(3 * y)), y

        (_, y), slope = quick.jit(
            jax.value_and_grad(lambda w: loss(plain, params, plain_stats, w), has_aux=True)
        )(weights)
        (_, z), other = quick.jit(
            jax.value_and_grad(lambda w: loss(fused, of_sources(params), stats, w), has_aux=True)
        )(weights)
    np.testing.assert_allclose(z, y, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(other, slope, rtol=1e-6, atol=1e-6)


def applied(network: flax.linen.Module, variables: Any, *inputs: Any) -> Any:
    """Outputs and new statistics, in training."""
    return quick.jit(lambda v, *args: network.apply(v, *args, True, mutable=["batch_stats"]))(
        variables, *inputs
    )


def test_one_hot_weights_are_the_cell_s_own_network() -> None:
    cell = Spec(("nor_conv_3x3", "skip_connect", "nor_conv_1x1", "avg_pool_3x3", "none",
                 "nor_conv_3x3"))  # fmt: skip
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 4, 3)), jnp.float32)
    head = flax.linen.Dense(2)

    class Head(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            return head.clone(parent=self, name="dense")(x.mean((1, 2)))

    own = network.Network(cell, Head(), width=4, cells_each=1)
    alphas = {KIND: jnp.asarray(100.0 * np.eye(5)[list(cell.numbers())], jnp.float32)}
    variables = quick.jit(lambda: own.init(KEY, x, True))()
    expected, _ = applied(own, variables, x)
    for one in (False, True):
        whole = Supernet(Head(), width=4, cells_each=1, formulation="per_edge", one=one)
        fresh = quick.jit(lambda whole=whole: whole.init(jax.random.key(1), x, alphas, True))()
        params = flax.traverse_util.flatten_dict(fresh["params"])
        for path, value in flax.traverse_util.flatten_dict(variables["params"]).items():
            if not path[1].startswith("edge_"):
                params[path] = value
            elif path[2] == "convolution":
                number = EDGES.index((int(path[1][5]), int(path[1][7])))
                chosen = ("chosen",) if one else ()
                params[(*path[:2], *chosen, cell.operations[number], *path[2:])] = value
        params = flax.traverse_util.unflatten_dict(params)
        found, _ = applied(whole, {**fresh, "params": params}, x, alphas)
        np.testing.assert_allclose(found, expected[0], rtol=2e-5, atol=2e-5)


def test_the_cell_takes_the_largest_weight_of_every_edge() -> None:
    weights = np.full((6, 5), 0.1)
    weights[np.arange(6), [0, 1, 2, 3, 4, 3]] = 0.6
    operations = door.operations(SupernetSection())
    found = door.cells({KIND: weights}, operations)
    assert found.operations == (*OPERATIONS, "nor_conv_3x3")
    assert mixed.names(door, found) == {KIND: list(found.operations)}
    weights[3, 3] = 0.5
    assert door.cells({KIND: weights}, operations, 0.55).operations[3] == "none"
    document = door.document(found, {KIND: weights}, {"seed": 1}, operations)
    assert spec.from_dict(document) == found and document["cell"] == str(found)


def config_of(**network: Any) -> ml_collections.ConfigDict:
    config = schema.search()
    config.network.update(space="nasbench201", stem="cifar", width=4, cells=3, **network)
    return config


def test_a_cell_keeps_its_strongest_operation_whatever_the_threshold() -> None:
    weights = np.full((6, 5), 0.1)
    weights[1, OPERATIONS.index("nor_conv_3x3")] = 0.4
    weights[3, OPERATIONS.index("skip_connect")] = 0.6
    weights[4, OPERATIONS.index("none")] = 0.9

    def edges(threshold: float) -> list[str]:
        return list(door.cells({KIND: weights}, {}, threshold).operations)

    assert [edges(0.5)[k] for k in (1, 3, 4)] == ["none", "skip_connect", "none"]
    assert edges(0.85) == ["none"] * 3 + ["skip_connect"] + ["none"] * 2


@pytest.mark.parametrize(
    "change, words",
    [
        ({"network.cells": 4}, "use a multiple of 3"),
        ({"network.nodes": 2}, "config.network.nodes=2: supernets of NAS-Bench-201"),
        ({"network.affine": True}, "use False"),
        ({"network.stem": "imagenet"}, "use 'cifar'"),
        ({"network.partial_channels": 3}, "must divide network.width=4"),
        ({"search.formulation": "depthwise"}, "use 'auto' or one of dense, per_edge"),
        ({"search.method": "p_darts"}, "the method 'p_darts' searches in darts"),
    ],
)
def test_what_there_is_not_is_refused(change: dict[str, Any], words: str) -> None:
    config = config_of()
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=words):
        validation.validate(config)


def test_a_space_from_outside_is_searched() -> None:
    if "door_of_mine" not in mixed.SUPERNETS:
        mixed.SUPERNETS.register("door_of_mine", types.SimpleNamespace(**vars(door)))
    config = config_of()
    config.network.space = "door_of_mine"
    validation.validate(config)
    c = config.to_dict()
    task = tasks.create(c, tiny.dataset())
    method = Darts(Setting(MethodConfig.of(c), task, sharding.data_mesh(jax.devices()[:1]), 4))
    assert jax.eval_shape(method.initial).alphas[KIND].shape == (6, 5)
    assert method.cells({KIND: np.eye(5)[[3] * 6]}).operations == ("nor_conv_3x3",) * 6
