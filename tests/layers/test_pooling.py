"""Tests of pooling against windows taken one by one in NumPy."""

from collections.abc import Callable

import jax
import numpy as np
import pytest

from tests import reference
from tests.spaces import quick
from unnas_jax.layers import pooling

# (kernel, stride, padding), as the search spaces combine them.
WINDOWS = [(3, 1, 1), (3, 2, 1), (2, 1, 0), (2, 2, 0), (5, 2, 2), (7, 1, 3)]
POOLS = {"max": pooling.max_pool, "avg": pooling.avg_pool}


def few_values(shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of which many are equal, negative ones among them."""
    return np.random.default_rng(0).integers(-3, 1, shape).astype(np.float64)


def gradient_by_window(x: np.ndarray, kind: str, window: tuple[int, int, int]) -> np.ndarray:
    """The gradient at x of the sum of (1 + number) * pooled value, a window at a time."""
    kernel, stride, padding = window
    gradient = np.zeros_like(x)
    sides = [(side + 2 * padding - kernel) // stride + 1 for side in x.shape[1:3]]
    weights = 1.0 + np.arange(x.shape[0] * sides[0] * sides[1] * x.shape[3])
    for weight, (n, i, j, c) in zip(
        weights, np.ndindex(x.shape[0], *sides, x.shape[3]), strict=True
    ):
        top, left = i * stride - padding, j * stride - padding
        pixels = [
            (n, row, column, c)
            for row in range(max(top, 0), min(top + kernel, x.shape[1]))
            for column in range(max(left, 0), min(left + kernel, x.shape[2]))
        ]
        if kind == "max":
            gradient[max(pixels, key=lambda pixel: x[pixel])] += weight  # The first of equals.
        else:
            for pixel in pixels:
                gradient[pixel] += weight / len(pixels)
    return gradient


def value_and_gradient(
    pool: Callable[..., jax.Array], x: np.ndarray, window: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    def weighted(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        pooled = pool(x, *window)
        return (pooled * (1.0 + np.arange(pooled.size).reshape(pooled.shape))).sum(), pooled

    with jax.enable_x64(True):
        (_, pooled), gradient = quick.jit(jax.value_and_grad(weighted, has_aux=True))(x)
    return np.asarray(pooled), np.asarray(gradient)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kind", POOLS)
def test_values_and_gradients_with_ties(kind: str, window: tuple[int, int, int]) -> None:
    x = few_values((2, 7, 6, 3))
    pooled, gradient = value_and_gradient(POOLS[kind], x, window)
    np.testing.assert_allclose(pooled, reference.pool(x, kind, *window), rtol=1e-12)
    np.testing.assert_allclose(gradient, gradient_by_window(x, kind, window), rtol=1e-12)


@pytest.mark.parametrize("kind", POOLS)
def test_other_backends_compute_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = few_values((2, 5, 6, 2))
    here = value_and_gradient(POOLS[kind], x, (3, 2, 1))
    monkeypatch.setattr("unnas_jax.core.sharding.platform", lambda: "tpu")
    for ours, native in zip(here, value_and_gradient(POOLS[kind], x, (3, 2, 1)), strict=True):
        np.testing.assert_allclose(ours, native, rtol=1e-12)


@pytest.mark.parametrize("kind", POOLS)
def test_a_nan_is_not_pooled_away(kind: str) -> None:
    x = few_values((1, 6, 6, 1))
    x[0, 2, 3, 0] = np.nan
    pooled, _ = value_and_gradient(POOLS[kind], x, (3, 1, 1))
    expected = np.zeros((6, 6), bool)
    expected[1:4, 2:5] = True
    np.testing.assert_array_equal(np.isnan(pooled[0, :, :, 0]), expected)
