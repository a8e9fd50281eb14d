"""One of several layers, chosen by data: the part of which programs for many cells are made."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.layers import forms

Branch = Callable[[Any], Any]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def choose(branches: Sequence[Branch], index: jax.Array, operands: Any) -> Any:
    """The result of the branch with this number; no other branch is computed.

    As `jax.lax.switch`, but for the gradient: a branch keeps its operands alone and computes the
    rest again, where `switch` would write room for what every branch keeps.
    """
    return jax.lax.switch(index, branches, operands)


def _forward(branches: Sequence[Branch], index: jax.Array, operands: Any) -> tuple[Any, Any]:
    return choose(branches, index, operands), (index, operands)


def _backward(branches: Sequence[Branch], kept: Any, gradient: Any) -> tuple[None, Any]:
    index, operands = kept

    def of(branch: Branch) -> Callable[[Any, Any], Any]:
        return lambda operands, gradient: jax.vjp(branch, operands)[1](gradient)[0]

    return None, jax.lax.switch(index, [of(branch) for branch in branches], operands, gradient)


choose.defvjp(_forward, _backward)


class Zeros(nn.Module):
    """Zeros.

    Attributes:
      channels: of the result; None: as many as the input's.
    """

    channels: int | None = None

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to (N, H, W, channels)."""
        del train
        return jnp.zeros((*x.shape[:-1], self.channels or x.shape[-1]), x.dtype)


class Pool(nn.Module):
    """A pooling of `unnas_jax.layers.pooling` with a window of 3 pixels and stride 1."""

    pool: Callable[[jax.Array, int, int, int], jax.Array]

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to the same."""
        del train
        return self.pool(x, 3, 1, 1)


class Same(nn.Module):
    """The input."""

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """The input."""
        del train
        return x


class Choice(nn.Module):
    """One of several layers.

    Attributes:
      layers: names and modules, called as layer(x, train); all give the same shape. The variables
        of a layer are under its name.
    """

    layers: tuple[tuple[str, nn.Module], ...]

    @nn.compact
    def __call__(self, x: jax.Array, index: jax.Array, train: bool) -> jax.Array:
        """The output of the layer with this number, int32 or bool."""
        bare = [layer.clone(parent=None, name=None) for _, layer in self.layers]
        params, statistics = {}, {}
        for (name, _), layer in zip(self.layers, bare, strict=True):
            if self.is_initializing():
                fresh = dict(layer.lazy_init(self.make_rng("params"), x, train=False))
            else:
                # Variables that exist already replace these.
                kinds = ("params", "batch_stats")
                fresh = {kind: {} for kind in kinds if self.has_variable(kind, name)}
            if "params" in fresh:
                params[name] = self.param(name, lambda _, fresh=fresh: fresh["params"])
            if "batch_stats" in fresh:  # A norm without scale and bias has nothing else.
                statistics[name] = self.variable(
                    "batch_stats", name, lambda fresh=fresh: fresh["batch_stats"]
                )
        kept = {name: variable.value for name, variable in statistics.items()}

        def branch(name: str, layer: nn.Module) -> Branch:
            def apply(operands: Any) -> Any:
                x, params, kept = operands
                variables = (("params", params), ("batch_stats", kept))
                own = {kind: values[name] for kind, values in variables if name in values}
                with forms.in_branch():
                    if not train:
                        return layer.apply(own, x, train), kept
                    y, state = layer.apply(own, x, train, mutable=["batch_stats"])
                return y, {**kept, name: state["batch_stats"]} if name in kept else kept

            return apply

        names = [name for name, _ in self.layers]
        branches = tuple(branch(name, layer) for name, layer in zip(names, bare, strict=True))
        y, kept = choose(branches, jnp.asarray(index, jnp.int32), (x, params, kept))
        if train and not self.is_initializing():
            for name, variable in statistics.items():
                variable.value = kept[name]
        return y
