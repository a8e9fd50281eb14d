"""Cells by perturbation (DARTS-PT, Wang et al., ICLR 2021).

An edge keeps the operation without which the supernet answers worst, and a node keeps the edges
without which it does, two in DARTS. Edges and nodes are decided one after the other, edges before
nodes, each in random order; between two decisions the supernet is trained.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from unnas_jax.methods.draws import Given
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts.candidates import Candidates
from unnas_jax.spaces.mixed import Mixed
from unnas_jax.spaces.registry import Cells


class Omission(NamedTuple):
    """What is left out, to see how much worse the supernet answers without it.

    Attributes:
      kind: of cell.
      edge: its number.
      operation: on the edge; '' for the whole edge.
    """

    kind: str
    edge: int
    operation: str = ""


Measure = Callable[[Given, Omission], float]
"""The score, more is better, of the supernet that mixes as given, without what is left out."""


@dataclasses.dataclass
class Projection:
    """What is decided so far.

    Attributes:
      space: of the cells.
      operations: of every edge, in the order of the mixing weights.
      seed: of the order.
      left: those of the operations that are to choose from; None: all.
      chosen: by kind the operation of every edge, None where it is open.
      dropped: by kind the edges that are gone.
      decided: how many of the decisions are made; each is one of every kind of cell.
    """

    space: Mixed
    operations: Candidates
    seed: int
    chosen: dict[str, list[str | None]] = dataclasses.field(default_factory=dict)
    dropped: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    decided: int = 0
    left: Candidates | None = None

    def __post_init__(self) -> None:
        for kind in self.kinds:
            self.chosen.setdefault(kind, [None] * len(self.edges))
            self.dropped.setdefault(kind, [])

    @property
    def kinds(self) -> list[str]:
        """The kinds of cell."""
        return sorted(self.operations)

    @property
    def edges(self) -> Sequence[tuple[int, int]]:
        """(source, node) of every edge."""
        return self.space.edges(self.operations)

    @property
    def crowded(self) -> list[int]:
        """The nodes with more edges than they keep."""
        if self.space.INPUTS is None:
            return []
        entering = collections.Counter(node for _, node in self.edges)
        return sorted(node for node, count in entering.items() if count > self.space.INPUTS)

    @property
    def decisions(self) -> int:
        """All: one an edge, then one for each node with more edges than it keeps."""
        return len(self.edges) + len(self.crowded)

    def as_json(self) -> dict[str, Any]:
        """What is decided, for `resumed`."""
        return {"chosen": self.chosen, "dropped": self.dropped, "decided": self.decided}

    def resumed(self, known: Mapping[str, Any]) -> Self:
        """As `as_json` says."""
        return dataclasses.replace(self, **known)

    def order(self, kind: str) -> tuple[list[int], list[int]]:
        """The edges and the nodes of a kind of cell, in the order of their decisions."""
        rng = np.random.default_rng([self.seed, self.kinds.index(kind)])
        nodes = [self.crowded[k] for k in rng.permutation(len(self.crowded))]
        return rng.permutation(len(self.edges)).tolist(), nodes

    # What is asked.

    def entering(self, kind: str, node: int) -> list[int]:
        """The edges into a node that are left."""
        return [
            k for k, (_, to) in enumerate(self.edges) if to == node and k not in self.dropped[kind]
        ]

    def passes(self) -> int:
        """How often a score is still to be measured."""
        return sum(
            self._passes(kind, number)
            for kind in self.kinds
            for number in range(self.decided, self.decisions)
        )

    def _passes(self, kind: str, number: int) -> int:
        edges, nodes = self.order(kind)
        if number < len(edges):
            return len(self._open(kind, edges[number]))
        left = sum(to == nodes[number - len(edges)] for _, to in self.edges)
        return sum(range(self._kept + 1, left + 1))

    @property
    def _kept(self) -> int:
        assert self.space.INPUTS is not None, "every edge is kept"
        return self.space.INPUTS

    def _open(self, kind: str, edge: int) -> list[str]:
        """The operations between which an edge is to choose; none if there is no choice."""
        names = self._candidates(kind, edge)
        return names if len(names) > 1 else []

    def _candidates(self, kind: str, edge: int) -> list[str]:
        left = self.operations if self.left is None else self.left
        # Where a node loses edges, none of those that it keeps is `none`.
        return [name for name in left[kind][edge] if name != "none" or self.space.INPUTS is None]

    def decide(self, measure: Measure) -> Iterator[tuple[str, list[tuple[Omission, float]], str]]:
        """Makes the next decision of every kind of cell.

        Yields:
          For each the kind, what was measured, and what is kept or dropped, in words.
        """
        for kind in self.kinds:
            edges, nodes = self.order(kind)
            if self.decided < len(edges):
                edge = edges[self.decided]
                yield kind, *self._operation(kind, edge, measure)
            else:
                yield kind, *self._inputs(kind, nodes[self.decided - len(edges)], measure)
        self.decided += 1

    def _operation(
        self, kind: str, edge: int, measure: Measure
    ) -> tuple[list[tuple[Omission, float]], str]:
        names = self._open(kind, edge)
        omissions = [Omission(kind, edge, name) for name in names]
        scores = [measure(self.given(omitted), omitted) for omitted in omissions]
        # The one that is missed most; of equals the first.
        kept = names[int(np.argmin(scores))] if names else self._candidates(kind, edge)[0]
        self.chosen[kind][edge] = kept
        return list(zip(omissions, scores, strict=True)), f"keeps {kept}"

    def _inputs(
        self, kind: str, node: int, measure: Measure
    ) -> tuple[list[tuple[Omission, float]], str]:
        measured: list[tuple[Omission, float]] = []
        while len(left := self.entering(kind, node)) > self._kept:
            omissions = [Omission(kind, edge) for edge in left]
            scores = [measure(self.given(omitted), omitted) for omitted in omissions]
            # The one that is missed least; of equals the last.
            best = max(range(len(left)), key=lambda k: (scores[k], k))
            self.dropped[kind].append(left[best])
            measured += zip(omissions, scores, strict=True)
        sources = ", ".join(str(self.edges[edge][0]) for edge in self.entering(kind, node))
        return measured, f"keeps the inputs {sources}"

    def given(self, without: Omission | None = None) -> Given:
        """The mixing weights of what is decided, float32: 1 of an edge's for its operation.

        The others are those of the alphas, or 0 for what is left out; nothing is normalised anew.
        """
        where, shares = {}, {}
        for kind in self.kinds:
            shape = candidates.mask(self.operations[kind]).shape
            where[kind], shares[kind] = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
            for edge, name in enumerate(self.chosen[kind]):
                if name is not None:
                    where[kind][edge] = 1
                    shares[kind][edge, self.operations[kind][edge].index(name)] = 1
            for edge in self.dropped[kind]:
                where[kind][edge], shares[kind][edge] = 1, 0
        if without is not None:
            names = self.operations[without.kind][without.edge]
            column = names.index(without.operation) if without.operation else slice(None)
            where[without.kind][without.edge, column] = 1
            shares[without.kind][without.edge, column] = 0
        return Given(where, shares, np.float32(1))

    def cells(self) -> Cells:
        """The discrete cells, once everything is decided."""
        return self.space.cells(self.given().shares, self.operations)
