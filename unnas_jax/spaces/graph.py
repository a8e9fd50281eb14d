"""Cells as graphs, for pictures and tables: which operation leads from where to where."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from unnas_jax.core.errors import UserError

Softmax: TypeAlias = Mapping[str, Sequence[Sequence[float]]]
"""`alphas_softmax` of a `genotype.json`: by kind of cell, (edges, operations)."""

Operations: TypeAlias = Mapping[str, Sequence[Sequence[str]]]
"""By kind of cell the operations of every edge in a search."""


@dataclasses.dataclass(frozen=True)
class Graph:
    """A cell.

    Attributes:
      title: what it is called.
      states: the names of its states, in the order in which they are computed.
      labels: the same for pictures.
      inputs: how many of the states, the first ones, are its inputs.
      edges: (operation, source state, target state), by target.
      weights: of every edge's operation in the search; None where it is not known.
      choices: the most operations that an edge had in the search.
      concat: the states that its output concatenates; none if the last state is the output.
    """

    title: str
    states: Sequence[str]
    labels: Sequence[str]
    inputs: int
    edges: Sequence[tuple[str, int, int]]
    weights: Sequence[float | None]
    choices: int
    concat: Sequence[int] = ()

    def __post_init__(self) -> None:
        """Raises `UserError` if the parts do not fit each other."""
        states = range(len(self.states))
        forward = (s in states and t in states[s + 1 :] for _, s, t in self.edges)
        fits = {
            "one label a state": len(self.labels) == len(states),
            "one weight an edge": len(self.weights) == len(self.edges),
            "edges from states to later ones": all(forward),
            "concat among the states": set(self.concat) <= set(states),
        }
        for what, true in fits.items():
            if not true:
                raise UserError(f"graph {self.title!r}: give {what}, from the cells' `graphs`")


@runtime_checkable
class Drawable(Protocol):
    """Cells that can be drawn, of any space: those that give their graphs."""

    def graphs(
        self, softmax: Softmax | None = None, operations: Operations | None = None
    ) -> Sequence[Graph]:
        """The graph of every kind of cell.

        Args:
          softmax: the weights of operations in the search; None: not known.
          operations: of every edge in the search; None: those of the space.

        Raises:
          UserError: the weights are of another cell.
        """
