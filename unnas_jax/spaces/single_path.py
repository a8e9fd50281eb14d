"""Supernets of which a step computes one path, a cell, by space: what a space gives for them.

Single-path search (Guo et al., 2020; Li and Talwalkar, 2019) trains the weights of all operations
by drawing a path for every step, and then judges cells with the weights that they share.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax

from unnas_jax.config.options import Config
from unnas_jax.config.sections import SupernetConfig
from unnas_jax.core.registry import Registry
from unnas_jax.spaces.darts import paths as darts
from unnas_jax.spaces.nasbench201 import paths as nasbench201
from unnas_jax.spaces.registry import Cells
from unnas_jax.spaces.vectors import Part
from unnas_jax.tasks.base import Examples, Task

Path = Any
"""A cell as arrays, which a program takes as data: one program computes all cells."""


class Paths(Protocol):
    """The supernet of a space, and the paths through it. It never changes and can be hashed."""

    @property
    def network(self) -> nn.Module:
        """The supernet; its parameters are those of all operations."""

    def draw(self, key: jax.Array) -> Path:
        """A path, uniformly; to be traced."""

    def of(self, cell: Any) -> Path:
        """The path of a cell, in NumPy arrays; `UserError` if it is no cell of this supernet."""

    def init(self, key: jax.Array, inputs: jax.ShapeDtypeStruct) -> Mapping[str, Any]:
        """Fresh `params` and `batch_stats`."""

    def apply(
        self, variables: Mapping[str, Any], inputs: jax.Array, path: Path, *, train: bool
    ) -> tuple[Any, Any]:
        """The head's outputs on a path, and the running statistics, in training the new ones."""

    def cells(self, count: int, seed: int) -> Sequence[Cells]:
        """Different random cells, uniformly from those that `draw` gives.

        The first of more of them with the same seed are the fewer; `UserError` if there are not so
        many.
        """

    def parts(self, cell: Any) -> Sequence[Part]:
        """The parts of the vector of a cell's weights, see `vectors`; refuses what `of` does."""

    def resolve(self, text: str) -> Cells:
        """The cell of a text; `UserError` if it is none."""

    def document(self, cell: Any) -> dict[str, Any]:
        """The content of a genotype.json of a cell of which nothing else is known."""

    def check_inputs(self, examples: Examples) -> None:
        """Raises `UserError` if the supernet cannot work on examples of these shapes."""


class Entry(NamedTuple):
    """A space with a supernet.

    Attributes:
      build: (a search's valid config, the task) -> its supernet.
      validate: raises `UserError` for a search's config that the supernet cannot be built of.
    """

    build: Callable[[Config, Task], Paths]
    validate: Callable[[SupernetConfig], None]


SUPERNETS: Registry[Entry] = Registry(
    "space with a single-path supernet",
    {
        "darts": Entry(darts.build, darts.validate),
        "nasbench201": Entry(nasbench201.build, nasbench201.validate),
    },
)
"""The spaces that have such a supernet, by the value of config.network.space."""


def of_config(config: Config) -> Entry:
    """The supernet's entry of the space of a search's config."""
    return SUPERNETS.find(SupernetConfig.of(config).network.space, "network.space")
