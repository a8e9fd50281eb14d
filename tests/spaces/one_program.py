"""That a program for many cells computes what the network of a cell computes."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from unnas_jax.spaces import programs, stages
from unnas_jax.spaces.nasbench101 import network as nasbench101
from unnas_jax.spaces.nasbench101.spec import Spec as Spec101
from unnas_jax.spaces.nasbench201 import network as nasbench201
from unnas_jax.spaces.nasbench201.spec import Spec as Spec201
from unnas_jax.spaces.programs import Program
from unnas_jax.sweep.scores import weights
from unnas_jax.sweep.scores.programs import Classifier


def network101(cell: Spec101, width: int) -> nasbench101.Network:
    """A network with two stacks of one module."""
    return nasbench101.Network(cell.pruned(), Classifier(4), width, stacks=2, modules=1)


def network201(cell: Spec201, width: int = 4) -> nasbench201.Network:
    """A network with one cell a stage."""
    return nasbench201.Network(cell, Classifier(4), width, 1)


@functools.partial(jax.jit, static_argnums=0)
def _learned(network: nn.Module, variables: Any, x: jax.Array) -> tuple[Any, Any, Any]:
    """The outputs, the gradient of a function of them and of the stages, and the new state."""

    def loss(params: Any) -> tuple[jax.Array, Any]:
        own = {**variables, "params": params}
        (outputs, _), state = network.apply(
            own, x, True, mutable=["batch_stats", stages.COLLECTION]
        )
        marked = stages.of(state) if stages.COLLECTION in state else ()
        ends = sum(jnp.mean(jnp.sin(3 * end)) for end in marked)
        return jnp.sum(outputs**2) + ends, (outputs, state["batch_stats"])

    gradient, (outputs, statistics) = jax.grad(loss, has_aux=True)(variables["params"])
    return outputs, gradient, statistics


def _exact(network: nn.Module) -> nn.Module:
    return network.clone(dtype=jnp.float64, head=network.head.clone(dtype=jnp.float64))


def assert_same(program: Program, side: int = 8) -> None:
    """Compares a program with its cell's own network, all their variables drawn.

    In float64: in float32 either is up to 2e-4 of its largest gradient away from that.
    """
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, side, side, 3))
    drawn = weights.draw(weights.shapes(program.own, (side, side, 3)), rng)
    for path, value in drawn.items():
        if path[-1] != "kernel":
            drawn[path] = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
    template = weights.shapes(program.network, (side, side, 3))
    placed = programs.placed(drawn, template, program.place)
    with jax.enable_x64(True):
        x = jnp.asarray(images, jnp.float64)
        of_own, of_many = (
            jax.tree.map(lambda value: jnp.asarray(value, jnp.float64), weights.tree(flat))
            for flat in (drawn, placed)
        )
        own, many = jax.device_get(
            (
                _learned(_exact(program.own), of_own, x),
                _learned(_exact(program.network), {**of_many, **program.cell}, x),
            )
        )
    np.testing.assert_allclose(many[0], own[0], rtol=1e-5, atol=1e-6)
    for collection, one, other in (("params", own[1], many[1]), ("batch_stats", own[2], many[2])):
        found = traverse_util.flatten_dict(other)
        seen = set()
        for path, value in traverse_util.flatten_dict(one).items():
            place = program.place(path)
            got = np.asarray(found[place])
            inside = tuple(slice(size) for size in value.shape)
            scale = max(1.0, float(np.max(np.abs(value))))
            np.testing.assert_allclose(got[inside], value, atol=1e-5 * scale, err_msg=str(path))
            seen.add(place)
            if collection == "params":
                # What a cell has no room for learns nothing.
                outside = np.ones(got.shape, bool)
                outside[inside] = False
                assert not np.any(got[outside]), path
        if collection == "params":
            for place, value in found.items():
                assert place in seen or not np.any(np.asarray(value)), place
