"""Supernets that mix all operations of every edge, by space: what a space gives for them.

Methods derived from `unnas_jax.methods.darts.Darts` learn the weights by which they mix. A space
has one kind of cell or several, each with alphas of its own; of several, the first one by name
counts for diagnostics and stop rules.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import flax.linen as nn
import numpy as np

from unnas_jax.config.options import Config
from unnas_jax.config.sections import SupernetConfig
from unnas_jax.core.registry import Registry
from unnas_jax.spaces.darts import mixed as darts
from unnas_jax.spaces.darts.candidates import Candidates
from unnas_jax.spaces.nasbench201 import mixed as nasbench201
from unnas_jax.spaces.registry import Cells
from unnas_jax.tasks.base import Examples, Task


class Mixed(Protocol):
    """A module, or an object, with these functions.

    A supernet is called as supernet(inputs, alphas, train) and returns the head's outputs. Its
    field `mix`, a function or None, makes of the alphas the weights by which it mixes, (edges,
    operations) by kind of cell, and the numbers of `unnas_jax.spaces.darts.per_edge.Skips`; None:
    their softmax. With the fields formulation='per_edge' and one=True it computes on every edge
    the operation of the largest weight alone, times that weight. The random stream `noise` is for
    what it draws.
    """

    LABELS: Mapping[str, str]
    """The kinds of cell, and what they are called in sentences."""

    INPUTS: int | None
    """How many edges enter a node of a discrete cell; None: all, of which some may be `none`."""

    def operations(self, section: Config) -> Candidates:
        """By kind of cell the operations of every edge, of a search's section `network`."""

    def edges(self, operations: Candidates) -> Sequence[tuple[int, int]]:
        """The state that every edge leaves, and the node that it enters, node by node."""

    def validate(self, config: Config) -> None:
        """Raises `UserError` for a search's config of which no supernet can be built."""

    def build(self, config: Config, task: Task) -> nn.Module:
        """The supernet of a valid config with the head of a task."""

    def check_inputs(self, examples: Examples) -> None:
        """Raises `UserError` if the supernet cannot work on examples of these shapes."""

    def cells(
        self, mixing: Mapping[str, np.ndarray], operations: Candidates, threshold: float = 0.0
    ) -> Cells:
        """The discrete cells of weights, without operations of less weight than a threshold."""

    def chosen(self, cells: Any) -> Mapping[str, Sequence[tuple[str, int, int]]]:
        """By kind of cell (operation, source, target) of every edge in it, as `edges` has them."""

    def document(
        self,
        cells: Any,
        weights: Mapping[str, np.ndarray],
        provenance: Mapping[str, Any],
        operations: Candidates,
    ) -> dict[str, Any]:
        """The content of a genotype.json."""


SUPERNETS: Registry[Mixed] = Registry(
    "space with a supernet of mixed operations", {"darts": darts, "nasbench201": nasbench201}
)
"""The spaces that have such a supernet, by the value of config.network.space."""


def names(space: Mixed, cells: Any) -> dict[str, list[str]]:
    """By kind of cell the operations of discrete cells."""
    return {kind: [name for name, _, _ in edges] for kind, edges in space.chosen(cells).items()}


def of_config(config: Config) -> Mixed:
    """What the space of a search's config gives."""
    return SUPERNETS.find(SupernetConfig.of(config).network.space, "network.space")
