"""The second-order alpha gradient against central differences of the unrolled loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unnas_jax.config.sections import Weights
from unnas_jax.learning import optim
from unnas_jax.methods import darts


def _problem():
    """A two-layer network whose hidden units are mixed by the alphas' softmax, on two batches."""
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(6, 3)), rng.normal(size=(6,))) for _ in range(2)]
    weights = {"in": rng.normal(size=(3, 4)), "out": rng.normal(size=(4,))}
    alphas = rng.normal(size=(4,))

    def loss_on(batch):
        x, y = batch

        def loss(weights, alphas):
            hidden = jnp.tanh(x @ weights["in"]) * jax.nn.softmax(alphas)[None]
            value = jnp.mean((hidden @ weights["out"] - y) ** 2)
            return value, {"loss": value}

        return loss

    return loss_on(batches[0]), loss_on(batches[1]), weights, alphas


@pytest.mark.parametrize("clip_norm", [0.05, 100.0])  # Clipped, and not.
def test_second_order_equals_central_differences(clip_norm):
    with jax.enable_x64(True):
        loss_a, loss_b, weights, alphas = _problem()
        settings = Weights(0.3, momentum=0.9, weight_decay=1e-2, clip_norm=clip_norm)
        optimizer = optim.optimizer(settings, lambda step: 0.3)
        state = optimizer.init(weights)
        # A step first, so that the momentum is not zero.
        gradient, _ = jax.grad(loss_a, has_aux=True)(weights, alphas)
        updates, state = optimizer.update(gradient, state, weights)
        weights = optax.apply_updates(weights, updates)

        def unrolled(alphas):
            gradient, _ = jax.grad(loss_a, has_aux=True)(weights, alphas)
            updates, _ = optimizer.update(gradient, state, weights)
            return float(loss_b(optax.apply_updates(weights, updates), alphas)[0])

        found, aux = darts.second_order(loss_a, loss_b, weights, alphas, optimizer, state)
        step = 1e-6
        expected = [
            (unrolled(alphas + step * e) - unrolled(alphas - step * e)) / (2 * step)
            for e in np.eye(4)
        ]
        first_order, _ = jax.grad(loss_b, argnums=1, has_aux=True)(weights, alphas)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-10)
        assert np.abs(found - first_order).max() > 1e-4  # The second order is not negligible.
        np.testing.assert_allclose(aux["loss"], unrolled(alphas), rtol=1e-12)
