"""The features at the ends of a network's stages, for those who ask for them."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from unnas_jax.core.errors import UserError

COLLECTION = "stages"
"""What `mutable` must name for `Module.apply` to give the features; see `of`."""


def end(module: nn.Module, x: jax.Array) -> None:
    """Marks x (N, H, W, C) as what a stage of a network gives; costs nothing unless asked for."""
    if not module.is_initializing():
        module.sow(COLLECTION, "ends", x)


def of(state: Mapping[str, Any]) -> tuple[jax.Array, ...]:
    """The features, first stage first, from the second result of an `apply`.

    Raises:
      UserError: the network marks no stages.
    """
    if COLLECTION not in state:
        raise UserError(
            "the network marks no ends of its stages, of which this score judges the features; "
            "call unnas_jax.spaces.stages.end(self, x) after each, or use another score"
        )
    ends: tuple[jax.Array, ...] = state[COLLECTION]["ends"]
    return ends
