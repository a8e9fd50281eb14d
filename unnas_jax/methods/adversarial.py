"""SmoothDARTS' adversarial perturbation (Chen and Hsieh, 2020, SDARTS-ADV) of the mixing weights.

Before a weight step they move to where the loss of its batch is large, at most so far as
`remedies.extent` says: by projected gradient ascent from a random start (Madry et al., 2018).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.core import sharding
from unnas_jax.methods import remedies
from unnas_jax.methods.base import SearchMethod, SearchState
from unnas_jax.methods.compiled import Compiled
from unnas_jax.methods.draws import DRAW, WEIGHT_STEP, Given, Moment
from unnas_jax.tasks.base import Batch, Examples

STEPS = 7
"""Steps of the ascent; each goes two sevenths of the extent along the gradient's signs."""

Shares = dict[str, jax.Array]
"""Mixing weights as parts of those of their edges, (E, O) by kind of cell."""


class Adversary:
    """The ascent for a method, its parts compiled when they are first used.

    Args:
      method: one that mixes by a softmax.
      loss: its loss with running statistics: the method, then as `draws.MomentLoss`.
    """

    def __init__(self, method: SearchMethod, loss: Callable[..., Any]) -> None:
        self._method, self._loss = method, loss
        jit = functools.partial(Compiled, method)
        self._nothing: Given | None = None
        self.begin, self.ascend, self.end = jit(self._begin), jit(self._ascend), jit(self._end)

    def __call__(self, state: SearchState, batch: Batch) -> Given:
        """The mixing weights for a weight step on a batch of half A.

        It takes nine passes over the batch. They use running statistics, which stay as they are.
        """
        plain, shares = self.begin(state)
        before, _ = self.ascend(state, batch, plain)
        for _ in range(STEPS):
            _, shares = self.ascend(state, batch, shares)
        after, _ = self.ascend(state, batch, shares)
        given: Given = self.end(plain, shares, before, after)
        return given

    def nothing(self, state: SearchState) -> Given:
        """A result of the same form that changes nothing, for alpha steps."""
        if self._nothing is None:
            shapes = jax.eval_shape(lambda state: _given(_plain(self._method, state)), state)
            zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
            self._nothing = sharding.replicate(zeros, self._method.setting.mesh)
        return self._nothing

    # Functions that are traced, of the method with the seed of a program.

    def _begin(self, method: SearchMethod, state: SearchState) -> tuple[Shares, Shares]:
        plain = _plain(method, state)
        key = method.key(DRAW, state.step)
        return plain, remedies.shaken(plain, key, _extent(method, state))

    def _ascend(
        self, method: SearchMethod, state: SearchState, batch: Batch, shares: Shares
    ) -> tuple[jax.Array, Shares]:
        """The loss at some shares, and the shares one step further, within the extent."""
        extent = _extent(method, state)
        # The images are augmented as in the weight step.
        examples = method.examples(WEIGHT_STEP, state.step, batch)

        def of_rows(variables: tuple[Any, ...], examples: Examples) -> Any:
            state, shares = variables

            def loss(shares: Shares) -> jax.Array:
                moment = Moment(state.step, WEIGHT_STEP, _given(shares))
                found: jax.Array = self._loss(
                    method, state.params, state.alphas, state.batch_stats, moment, examples
                )[0]
                return found

            return sharding.total(jax.value_and_grad(loss)(shares))

        value, slopes = sharding.by_device(of_rows, method.setting.mesh)((state, shares), examples)
        plain = _plain(method, state)
        return value, {k: ascended(plain[k], shares[k], slopes[k], extent) for k in plain}

    def _end(
        self,
        method: SearchMethod,
        plain: Shares,
        shares: Shares,
        before: jax.Array,
        after: jax.Array,
    ) -> Given:
        """The shares that were found, or those of the alphas if their loss is larger."""
        del method  # Nothing is drawn.
        return _given({k: jnp.where(after < before, plain[k], shares[k]) for k in sorted(plain)})


def _plain(method: SearchMethod, state: SearchState) -> Shares:
    """The shares that the alphas give."""
    weights = method.mix(state.alphas)
    return {k: weights[k] / jnp.sum(weights[k], 1, keepdims=True) for k in sorted(weights)}


def _extent(method: SearchMethod, state: SearchState) -> Any:
    return remedies.extent(method.options, method.epoch(state.step), method.epochs)


def ascended(plain: jax.Array, shares: jax.Array, slope: jax.Array, extent: Any) -> jax.Array:
    """A step of the ascent, all (E, O): clipped to the extent, then to shares."""
    shift = shares + 2 * extent / STEPS * jnp.sign(slope) - plain
    return remedies.moved(plain, jnp.clip(shift, -extent, extent))


def _given(shares: Shares) -> Given:
    where = {kind: jnp.ones_like(share) for kind, share in shares.items()}
    return Given(where, shares, jnp.zeros((), jnp.float32))
