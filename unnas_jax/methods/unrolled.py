"""The second order of DARTS: the gradient of the alphas through a step of the weights."""

from collections.abc import Callable
from typing import Any

import jax
import optax

Loss = Callable[[Any, Any], tuple[jax.Array, Any]]
"""(weights, alphas) -> (loss, auxiliary), on one batch."""


def second_order(
    loss_a: Loss,
    loss_b: Loss,
    weights: Any,
    alphas: Any,
    optimizer: optax.GradientTransformation,
    optimizer_state: optax.OptState,
) -> tuple[Any, Any]:
    """The gradient in the alphas of B's loss after one weight step on A (DARTS, equation 6).

        d/d alpha  L_B(w', alpha)  with  w' = step(w, d/dw L_A(w, alpha))

    It is exact: the step, with its clipping, decay and momentum, is differentiated too, where
    DARTS approximates the mixed second derivative by finite differences and its step by plain SGD.

    Args:
      loss_a, loss_b: the losses of the two halves.
      weights, alphas: pytrees, at which the gradient is taken.
      optimizer, optimizer_state: of the weights; the state is not changed.

    Returns:
      The gradient, of the structure of `alphas`, and the auxiliary value of `loss_b`.
    """

    def after_step(alphas: Any) -> tuple[jax.Array, Any]:
        gradient, _ = jax.grad(loss_a, has_aux=True)(weights, alphas)
        updates, _ = optimizer.update(gradient, optimizer_state, weights)
        return loss_b(optax.apply_updates(weights, updates), alphas)

    return jax.grad(after_step, has_aux=True)(alphas)
