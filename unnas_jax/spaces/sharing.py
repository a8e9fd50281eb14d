"""What a space may give besides: a program for many cells, in which the cell is data."""

from typing import Any, Protocol, runtime_checkable

import flax.linen as nn

from unnas_jax.spaces import programs, registry
from unnas_jax.spaces.programs import Program


@runtime_checkable
class Sharing(Protocol):
    """A `registry.Space` whose cells have programs in common."""

    def kind(self, cell: Any) -> str:
        """The same text for cells that have a program in common, other things equal; '': none."""

    def program(self, own: Any) -> Program:
        """The program that computes what a cell's own network does.

        Args:
          own: the network, as `build` makes it, maybe with another head or number format.
        """


def is_possible(space: str) -> bool:
    """Whether cells of a space, by its name, can have a program in common."""
    return isinstance(registry.SPACES[space], Sharing)


def kind(space: str, cell: Any) -> str:
    """`Sharing.kind` of a cell; '' if its space, by its name, has no programs for many cells."""
    found = registry.SPACES[space]
    return found.kind(cell) if isinstance(found, Sharing) else ""


def program(space: str, own: nn.Module) -> Program:
    """`Sharing.program` of a network; its own if its space has none for it."""
    found = registry.SPACES[space]
    return found.program(own) if isinstance(found, Sharing) else programs.alone(own)
