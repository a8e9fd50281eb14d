"""The features at the ends of a network's stages, for heads and scores that need them."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from unnas_jax.core.errors import UserError

COLLECTION = "stages"
"""What `mutable` must name for `Module.apply` to give the features; see `of`."""


def end(module: nn.Module, x: jax.Array) -> jax.Array:
    """Marks x (N, H, W, C) as the output of a stage; costs nothing unless it is asked for."""
    if not module.is_initializing():
        module.sow(COLLECTION, "ends", x)
    return x


def for_head(head: nn.Module, ends: Sequence[jax.Array], last: jax.Array) -> Any:
    """The argument with which a network calls its head.

    Args:
      head: has an attribute `stages` that is true if it answers from the ends of all stages.
      ends: of the stages, the first one's first, as `end` gave them.
      last: the network's last features, which any other head gets.
    """
    return tuple(ends) if getattr(head, "stages", False) else last


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
