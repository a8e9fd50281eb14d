"""The number format of activations; parameters, statistics and losses stay float32."""

from typing import Any

import jax
import jax.numpy as jnp


def compute_dtype(precision: str) -> Any:
    """The dtype of a config's `precision`; `auto` is bfloat16 except on CPUs."""
    if precision == "auto":
        precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(precision)
