"""Tests that tasks which move pixels move them in the network's number format, unchanged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tasks import datasets
from unnas_jax.tasks import registry


@pytest.mark.parametrize("name", ["rotation", "jigsaw"])
def test_bfloat16_inputs_are_the_rounded_float32_ones(name: str) -> None:
    def inputs(precision: str) -> jax.Array:
        config = {**datasets.config(name), "precision": precision}
        task = registry.create(config, datasets.dataset())
        batch = {"image": datasets.images(2, 48)}
        return datasets.examples(task, 0, batch, train=True).inputs

    wide, narrow = inputs("float32"), inputs("bfloat16")
    assert (wide.dtype, narrow.dtype) == (jnp.float32, jnp.bfloat16)
    np.testing.assert_array_equal(wide.astype(jnp.bfloat16), narrow)
