"""The names of architectures, the same for isomorphic cells, whatever they were read from."""

import hashlib
from typing import Any

from unnas_jax.core.errors import UserError
from unnas_jax.spaces import registry


def of_cell(space: str, cell: Any) -> str:
    """`SPACE-` and twelve digits that only this cell, and those isomorphic to it, have."""
    identity = registry.SPACES[space].identity(cell)
    return f"{space}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def space_of(text: str, first: str = "darts") -> str | None:
    """The first space that reads a text as a cell; None if no one does.

    Args:
      text: as a config's `network.genotype`.
      first: the space that is asked before all others.
    """
    for name in sorted(registry.SPACES, key=lambda name: name != first):
        try:
            registry.SPACES[name].resolve(text)
        except UserError:
            continue
        return name
    return None
