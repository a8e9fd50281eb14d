"""What networks are scored with: heads, and fresh variables."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.spaces.programs import Flat, Path, Program, placed
from unnas_jax.sweep.scores import weights


class Classifier(nn.Module):
    """Logits of the pooled features: `tasks.heads.ImageHead` in a precision of one's own."""

    classes: int = 10
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to (N, classes)."""
        del train
        return nn.Dense(self.classes, dtype=self.dtype, name="linear")(
            jnp.mean(features, axis=(1, 2))
        )


class Features(nn.Module):
    """The features themselves, in the place of a head."""

    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to the same."""
        del train
        return features


_templates: dict[Any, dict[Path, jax.ShapeDtypeStruct]] = {}


def variables(
    program: Program,
    side: int,
    rng: np.random.Generator,
    kernels: weights.Kernels = weights.uniform_fan_in,
) -> dict[str, Any]:
    """Fresh variables of a program's network for RGB images of a side.

    They equal those of the cell's own network, so that sharing programs changes no score.
    """
    drawn: Flat = weights.draw(weights.shapes(program.own, (side, side, 3)), rng, kernels)
    if program.cell:
        key = program.network, side
        if key not in _templates:
            _templates[key] = weights.shapes(program.network, (side, side, 3))
        drawn = placed(drawn, _templates[key], program.place)
    return {**weights.tree(drawn), **program.cell}
