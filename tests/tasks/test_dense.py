"""Tests of per-pixel scores: interpolation with aligned corners, blocks of rows, ignored pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import reference
from unnas_jax.tasks import dense

SHAPE, SIZE, CLASSES = (3, 4, 5), (11, 9), 6


@functools.partial(jax.jit, static_argnums=1)
def upsampled(x, size):
    return dense.interpolated(x, dense.interpolation(x.shape[1], size[0]), size[1])


@pytest.mark.parametrize("size", [(7, 9), (4, 5), (3, 2), (1, 1), (13, 17)])
def test_upsample(size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 3)).astype(np.float32)
    expected = reference.bilinear(x.astype(np.float64), *size)
    np.testing.assert_allclose(upsampled(jnp.asarray(x), size), expected, atol=1e-5)


def test_upsample_keeps_corners_and_repeats_a_single_pixel() -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 3, 2)).astype(np.float32)
    out = np.asarray(upsampled(jnp.asarray(x), (8, 7)))
    np.testing.assert_allclose(out[:, ::7, ::6], x[:, ::2, ::2], atol=1e-6)
    single = upsampled(jnp.asarray(x[:, :1, :1]), (4, 3))
    np.testing.assert_allclose(single, np.broadcast_to(x[:, :1, :1], (1, 4, 3, 2)), atol=1e-6)


def test_logits_of_bfloat16_are_interpolated_in_float32() -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(10 * rng.standard_normal((1, 4, 5, 3)), jnp.bfloat16)
    out = upsampled(x, (23, 31))
    assert out.dtype == jnp.float32
    expected = reference.bilinear(np.asarray(x, np.float64), 23, 31)
    np.testing.assert_allclose(out, expected, atol=1e-4)  # In bfloat16: 0.1.


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, targets with ignored pixels, weights with a padded row."""
    rng = np.random.default_rng(0)
    logits = (3 * rng.standard_normal((*SHAPE, CLASSES))).astype(np.float32)
    targets = rng.integers(0, CLASSES, (SHAPE[0], *SIZE)).astype(np.int32)
    targets[rng.uniform(size=targets.shape) < 0.2] = 255
    return logits, targets, np.array([1.0, 0.0, 1.0], np.float32)


def expected_sums(
    logits: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> tuple[dict[str, float], np.ndarray]:
    """The sums and the loss' gradient with respect to the logits."""
    full = reference.bilinear(logits.astype(np.float64), *SIZE)
    counts = (targets != 255) * weights[:, None, None]
    classes = np.where(targets == 255, 0, targets)
    probabilities = np.exp(full - full.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    of_full = (probabilities - np.eye(CLASSES)[classes]) * counts[..., None]
    # The transpose of a linear map is the map of the unit vectors.
    rows = reference.lift(np.eye(SHAPE[1]), SIZE[0])
    columns = reference.lift(np.eye(SHAPE[2]), SIZE[1])
    gradient = np.einsum("nrck,rh,cw->nhwk", of_full, rows, columns)
    sums = {
        "loss": float(np.sum(reference.cross_entropy(full, classes) * counts)),
        "correct": float(np.sum((full.argmax(axis=-1) == classes) * counts)),
        "count": float(counts.sum()),
    }
    return sums, gradient


# All rows at once; blocks of 4, 4 and 3 rows; row by row.
@pytest.mark.parametrize("limit", [1_000_000, 4 * SIZE[1] * CLASSES + 5, 1])
def test_pixel_score(
    scored: tuple[np.ndarray, np.ndarray, np.ndarray],
    limit: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dense, "_BLOCK_LOGITS", limit)
    logits, targets, weights = scored

    def loss(logits: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        sums = dense.pixel_score(logits, jnp.asarray(targets), jnp.asarray(weights))
        return sums["loss"], sums

    (_, sums), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(jnp.asarray(logits))
    expected, expected_gradient = expected_sums(logits, targets, weights)
    np.testing.assert_allclose(sums["loss"], expected["loss"], rtol=1e-5)
    assert float(sums["correct"]) == expected["correct"] > 0
    assert float(sums["count"]) == expected["count"] < 2 * SIZE[0] * SIZE[1]
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-5)
    assert np.all(np.asarray(gradient)[1] == 0)


def test_an_image_without_a_valid_pixel_counts_nothing(
    scored: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    logits, targets, weights = scored
    nothing = jnp.full_like(jnp.asarray(targets), 255)
    sums = jax.jit(dense.pixel_score)(jnp.asarray(logits), nothing, jnp.asarray(weights))
    assert {name: float(value) for name, value in sums.items()} == {
        "loss": 0.0,
        "correct": 0.0,
        "count": 0.0,
    }
