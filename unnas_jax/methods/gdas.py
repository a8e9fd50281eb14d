"""Searches that draw operations: GDAS (Dong and Yang, 2019) and SNAS (Xie et al., 2019).

With Gumbel noise g and a temperature t, p = softmax((alpha + g) / t) is a draw from the softmax of
the alphas that has a gradient. SNAS mixes by p. GDAS computes the operation of the largest p alone
and multiplies it with 1 + p - stop_gradient(p): an edge costs the memory of one operation.
"""

from typing import Any

import jax
import jax.numpy as jnp

from unnas_jax.config.sections import MethodConfig
from unnas_jax.core.errors import UserError
from unnas_jax.methods.base import Alphas
from unnas_jax.methods.darts import Darts
from unnas_jax.methods.draws import DRAW, Moment
from unnas_jax.spaces import mixed, mixing


def one_hot(weights: jax.Array) -> jax.Array:
    """1 for the largest of every row of (E, O), otherwise 0."""
    return jax.nn.one_hot(jnp.argmax(weights, -1), weights.shape[-1], dtype=weights.dtype)


def straight_through(weights: jax.Array) -> jax.Array:
    """`one_hot` in value, the weights themselves in the gradient."""
    return one_hot(weights) + (weights - jax.lax.stop_gradient(weights))


class Gdas(Darts):
    """GDAS, or SNAS' relaxed draws: all cells of a kind share a step's draw."""

    name = "gdas"
    mixture = False  # A pass computes one operation, or mixes by a draw.

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The temperature falls linearly by epoch, to its last value in the last one."""
        return {"first_temperature": 10.0, "last_temperature": 0.1, "relaxed": False}

    @classmethod
    def validate(cls, config: MethodConfig) -> None:
        """Checks the temperatures, and that one operation alone can be computed."""
        super().validate(config)
        options, form = cls.completed(config.method), config.search.formulation
        for key in ("first_temperature", "last_temperature"):
            if options[key] <= 0:
                raise UserError(f"config.method.{key}={options[key]!r}: must be greater than 0")
        for key, only in (("mixing", "softmax"), ("perturbation", "none")):
            if options[key] != only:
                raise UserError(
                    f"config.method.{key}={options[key]!r}: the method draws operations itself; "
                    f"use {only!r}"
                )
        if options["relaxed"]:
            return
        if form not in ("auto", "per_edge"):
            raise UserError(
                f"config.search.formulation={form!r}: computes all operations; use 'auto', or "
                "config.method.relaxed=True"
            )
        named = mixed.of_config(config).operations(config.network)
        if any("noise" in names for edges in named.values() for names in edges):
            raise UserError(
                "config.network.operations: 'noise' cannot be drawn by itself; leave it out, or "
                "use config.method.relaxed=True"
            )

    def build(self) -> Any:
        """The supernet of one operation an edge, unless draws are relaxed."""
        whole = super().build()
        return whole if self.options["relaxed"] else whole.clone(formulation="per_edge", one=True)

    def temperature(self, step: Any) -> Any:
        """The temperature in the step after `step` finished ones."""
        first, last = self.options["first_temperature"], self.options["last_temperature"]
        return first + (last - first) * self.epoch(step) / max(self.epochs - 1, 1)

    def mix_in_training(self, alphas: Alphas, moment: Moment) -> dict[str, jax.Array]:
        """A draw for this pass."""
        key = jax.random.fold_in(self.key(DRAW, moment.step), moment.purpose)
        noisy = {}
        kinds = sorted(alphas)
        for kind, own in zip(kinds, jax.random.split(key, len(kinds)), strict=True):
            gumbel = jax.random.gumbel(own, alphas[kind].shape, jnp.float32)
            noisy[kind] = (alphas[kind] + gumbel) / self.temperature(moment.step)
        weights = mixing.softmax(noisy, self.operations())
        if not self.options["relaxed"]:
            weights = {kind: straight_through(weights[kind]) for kind in kinds}
        return {**weights, **self.skips(moment.step)}

    def mix_in_evaluation(self, alphas: Alphas, step: jax.Array) -> dict[str, jax.Array]:
        """The most likely operations, unless draws are relaxed."""
        weights = super().mix_in_evaluation(alphas, step)
        if self.options["relaxed"]:
            return weights
        return {**weights, **{kind: one_hot(weights[kind]) for kind in alphas}}
