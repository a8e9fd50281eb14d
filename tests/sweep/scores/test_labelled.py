"""Scores with labels against their closed forms."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unnas_jax.sweep.scores import labelled, zero_cost

RNG = np.random.default_rng(1)


class Two(nn.Module):
    """Two linear layers."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(2, use_bias=False, name="b")(nn.Dense(3, use_bias=False, name="a")(x))


def half_square(outputs: jax.Array) -> jax.Array:
    """A loss whose derivatives are known."""
    return 0.5 * jnp.sum(outputs**2)


X, A, B = (RNG.normal(size=shape) for shape in ((5, 4), (4, 3), (3, 2)))
VARIABLES: dict[str, Any] = {
    "params": {
        "a": {"kernel": jnp.asarray(A, jnp.float32)},
        "b": {"kernel": jnp.asarray(B, jnp.float32)},
    }
}
OUT = X @ A @ B
GRADIENTS = (X.T @ OUT @ B.T, (X @ A).T @ OUT)


def of(score: Any, loss: Any = half_square) -> float:
    apply = zero_cost.applied(Two())
    return float(score(apply, VARIABLES, jnp.asarray(X, jnp.float32), loss))


def test_grad_norm_sums_the_layers_norms() -> None:
    assert of(labelled.grad_norm) == pytest.approx(sum(map(np.linalg.norm, GRADIENTS)), rel=1e-4)


def test_snip_sums_weights_times_gradients() -> None:
    expected = np.abs(A * GRADIENTS[0]).sum() + np.abs(B * GRADIENTS[1]).sum()
    assert of(labelled.snip) == pytest.approx(expected, rel=1e-4)


def test_grasp_by_finite_differences() -> None:
    """-w' H g is minus the change of |g|^2 / 2 along w."""

    def flow(scale: float) -> float:
        a, b = scale * A, scale * B
        out = X @ a @ b
        return 0.5 * sum(np.sum(g**2) for g in (X.T @ out @ b.T, (X @ a).T @ out))

    expected = -(flow(1 + 1e-5) - flow(1 - 1e-5)) / 2e-5
    assert of(labelled.grasp) == pytest.approx(expected, rel=1e-4)


def test_fisher_of_both_layers() -> None:
    """The outputs of the layers are XA and XAB; dL/d(XAB) = XAB, dL/d(XA) = XAB B'."""
    first, second = (X @ A) * (OUT @ B.T), OUT * OUT
    expected = 0.5 * (np.mean(first**2, 0).sum() + np.mean(second**2, 0).sum())
    assert of(labelled.fisher) == pytest.approx(expected, rel=1e-4)


class Convolution(nn.Module):
    """One convolution, averaged."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return jnp.mean(nn.Conv(2, (1, 1), use_bias=False, name="c")(x), axis=(1, 2))


def test_fisher_sums_over_pixels_before_it_squares() -> None:
    x = RNG.normal(size=(3, 4, 4, 2)).astype(np.float32)
    kernel = RNG.normal(size=(1, 1, 2, 2)).astype(np.float32)
    variables = {"params": {"c": {"kernel": jnp.asarray(kernel)}}}
    apply = zero_cost.applied(Convolution())
    got = float(labelled.fisher(apply, variables, jnp.asarray(x), half_square))
    mean = (x @ kernel[0, 0]).mean((1, 2))
    # a dL/da summed over the pixels is mean^2.
    assert got == pytest.approx(0.5 * np.sum(np.mean(mean**4, axis=0)), rel=1e-4)


def test_cross_entropy() -> None:
    logits, labels = jnp.array([[2.0, 0.0], [0.0, 0.0]]), jnp.array([0, 1])
    expected = (np.log(1 + np.exp(-2)) + np.log(2)) / 2
    assert float(labelled.cross_entropy(labels)(logits)) == pytest.approx(expected, rel=1e-5)


def test_a_network_without_layers_is_told() -> None:
    class Nothing(nn.Module):
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            return x

    with pytest.raises(ValueError, match="no nn.Conv"):
        labelled.fisher(zero_cost.applied(Nothing()), {"params": {}}, jnp.ones((2, 2)), half_square)
