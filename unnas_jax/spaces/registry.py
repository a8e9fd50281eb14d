"""The search spaces by name, to which others can add theirs, and the interface of a space."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from unnas_jax.config.schema import SampleSection
from unnas_jax.config.sections import NetworkSection
from unnas_jax.core.registry import Registry
from unnas_jax.spaces.darts import network as darts_network
from unnas_jax.spaces.darts import space as darts
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.nasbench101 import network as nasbench101_network
from unnas_jax.spaces.nasbench101 import space as nasbench101
from unnas_jax.spaces.nasbench101.spec import Spec
from unnas_jax.spaces.nasbench201 import network as nasbench201_network
from unnas_jax.spaces.nasbench201 import space as nasbench201
from unnas_jax.spaces.nasbench201.spec import Spec as Spec201
from unnas_jax.tasks.base import Examples, Task

Cells = Genotype | Spec | Spec201
"""The cells of a space; all have `as_dict`, and `str` gives their text."""

Network = darts_network.Network | nasbench101_network.Network | nasbench201_network.Network
"""A discrete network, called as network(inputs, train, drop_path); it returns the outputs of its
head and of its auxiliary head, or None. All kinds have the attributes `width` and `cells`."""


class Space(Protocol):
    """A search space: a module, or an object, with these functions; see docs/walks/space.md."""

    ANY: str
    """The text of a valid cell, where none is chosen yet."""

    def draw(self, section: SampleSection, seed: int) -> Sequence[Cells]:
        """The random cells that a sweep's section `sample` asks for, all different."""

    def identity(self, cell: Any) -> str:
        """The same text for cells that are one architecture, and only for them."""

    def from_dict(self, value: Mapping[str, Any]) -> Cells:
        """The cell that `as_dict` wrote; raises `UserError` for anything else."""

    def validate(self, section: NetworkSection) -> None:
        """Raises `UserError` for a training's section `network` that this space cannot build."""

    def file_of(self, name: str) -> str | None:
        """The path of the file that a config's `network.genotype` names, None if it is no file."""

    def load(self, path: str) -> tuple[Cells, dict[str, Any]]:
        """The cells of a file and its whole document; raises `UserError` if it holds none."""

    def resolve(self, name: str) -> Cells:
        """The cells that `network.genotype` stands for; raises `UserError` if there are none."""

    def build(self, section: NetworkSection, task: Task, dtype: Any) -> Network:
        """The network of a valid section, with the head of a task, computed in a number format."""

    def check_inputs(self, section: NetworkSection, task: Task, examples: Examples) -> None:
        """Raises `UserError` if the section's network cannot work on examples of these shapes."""


SPACES: Registry[Space] = Registry(
    "space", {"darts": darts, "nasbench101": nasbench101, "nasbench201": nasbench201}
)
"""The spaces, by the value of config.network.space."""


def of_section(section: NetworkSection) -> Space:
    """The space of a training's section `network`."""
    return SPACES.find(section.space, "network.space")
