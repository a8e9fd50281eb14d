"""Tests of the heads against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import reference
from tests.tasks import datasets
from unnas_jax.layers.heads import AsppHead, ImageHead, PixelHead
from unnas_jax.tasks import registry


@pytest.mark.parametrize("group", [1, 3])
def test_image_head_pools_concatenates_and_maps(group: int) -> None:
    head = ImageHead(5, group=group)
    features = np.random.default_rng(0).standard_normal((6, 4, 3, 2)).astype(np.float32)
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), features, False))
    variables = reference.random_like(shapes, seed=1, dtype=np.float32)
    linear = variables["params"]["linear"]
    expected = []
    for first in range(0, 6, group):
        pooled = [features[first + k].mean(axis=(0, 1)) for k in range(group)]
        expected.append(np.concatenate(pooled) @ linear["kernel"] + linear["bias"])
    np.testing.assert_allclose(
        head.apply(variables, features, False), expected, rtol=1e-4, atol=1e-5
    )


def test_image_head_answers_in_float32() -> None:
    head = ImageHead(5, dtype=jnp.bfloat16)
    features = jnp.ones((2, 2, 2, 3), jnp.bfloat16)
    outputs, _ = head.init_with_output(jax.random.key(0), features, False)
    assert outputs.dtype == jnp.float32


def test_pixels_are_answered_in_float32() -> None:
    """Rounded to bfloat16, logits near 10 would be off by up to 0.03."""
    task = registry.create(datasets.config("colorization"), datasets.dataset())
    head = task.head(jnp.bfloat16)
    features = jax.random.normal(jax.random.key(0), (2, 4, 3, 2), jnp.bfloat16)
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), features, False))
    variables = reference.random_like(shapes, seed=1, dtype=np.float32)
    conv = variables["params"]["conv"]
    conv["bias"] += 10
    outputs = head.apply(variables, features, False)
    expected = np.asarray(features, np.float64) @ conv["kernel"][0, 0] + conv["bias"]
    assert outputs.dtype == jnp.float32
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    head = AsppHead(3, 4, (2,), dtype=jnp.bfloat16)
    outputs = jax.eval_shape(lambda: head.init_with_output(jax.random.key(0), features, False)[0])
    assert outputs.dtype == jnp.float32


def test_pixel_head_maps_every_pixel() -> None:
    head = PixelHead(5)
    features = np.random.default_rng(0).standard_normal((2, 4, 3, 2)).astype(np.float32)
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), features, False))
    variables = reference.random_like(shapes, seed=1, dtype=np.float32)
    conv = variables["params"]["conv"]
    expected = features @ conv["kernel"][0, 0] + conv["bias"]
    np.testing.assert_allclose(
        head.apply(variables, features, False), expected, rtol=1e-4, atol=1e-5
    )
