"""The number format of activations; parameters, statistics and losses stay float32."""

from typing import Any

import jax.numpy as jnp

from unnas_jax.core import sharding


def compute_dtype(precision: str) -> Any:
    """The dtype of a config's `precision`; `auto` is bfloat16 except on CPUs."""
    if precision == "auto":
        precision = "float32" if sharding.platform() == "cpu" else "bfloat16"
    return jnp.dtype(precision)
