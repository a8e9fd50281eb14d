"""What random draws and schedules of a search depend on, besides the seed."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# What a random draw is for; folded into the seed's key together with the step.
INIT, ALPHAS, WEIGHT_STEP, ALPHA_STEP, EVALUATION, NOISE, DRAW = range(7)


class Given(NamedTuple):
    """Mixing weights that replace those of the alphas, by kind of cell.

    Attributes:
      where: (E, O), 1 where the weights are given, 0 where they are those of the alphas.
      shares: (E, O), the given weights, as shares of the weight of their edge.
      also_alphas: whether alpha steps mix by them, too; float32.
    """

    where: Mapping[str, Any]
    shares: Mapping[str, Any]
    also_alphas: Any

    def into(
        self, weights: Mapping[str, jax.Array], purpose: jax.Array | int
    ) -> dict[str, jax.Array]:
        """The weights (E, O) that a pass for a purpose mixes by; an edge weighs at most 1."""
        counts = jnp.where(purpose == ALPHA_STEP, self.also_alphas, 1.0)
        result = dict(weights)
        for kind, where in self.where.items():
            whole = jnp.minimum(jnp.sum(weights[kind], 1, keepdims=True), 1.0)
            taken = where * counts > 0
            result[kind] = jnp.where(taken, self.shares[kind] * whole, weights[kind])
        return result


class Moment(NamedTuple):
    """What draws and schedules of a pass depend on.

    Attributes:
      step: int32, the finished steps of the run.
      purpose: int32, `WEIGHT_STEP` or `ALPHA_STEP`.
      given: mixing weights that are not those of the alphas, if there are any.
    """

    step: jax.Array | int
    purpose: jax.Array | int
    given: Any = None


MomentLoss = Callable[[Any, Any, Any, Moment, Any], tuple[jax.Array, Any]]
"""(weights, alphas, running statistics, moment, examples) -> the mean loss, and what comes with it.

`unnas_jax.methods.darts.Darts.loss` is one.
"""
