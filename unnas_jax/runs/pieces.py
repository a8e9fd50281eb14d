"""Networks for one's own programs, in the form and number format that suit the backend."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from unnas_jax.config import schema
from unnas_jax.core.errors import UserError
from unnas_jax.runs import validation
from unnas_jax.spaces.darts import supernet as supernet_lib
from unnas_jax.spaces.networks import build_network
from unnas_jax.spaces.registry import Cells
from unnas_jax.tasks import registry as tasks
from unnas_jax.tasks.base import Task


class Logits(nn.Module):
    """A discrete network whose call returns the head's outputs alone.

    Its parameters are those of the network.

    Attributes:
      network: called as network(inputs, train, drop_path), returns a pair of outputs.
    """

    network: nn.Module

    def setup(self) -> None:  # noqa: D102 (Flax's.)
        nn.share_scope(self, self.network)

    def __call__(self, inputs: jax.Array, train: bool = False, drop_path: Any = None) -> jax.Array:
        """The outputs for inputs (N, H, W, channels): for classes float32 logits (N, classes).

        Args:
          inputs: normalised images.
          train: whether batch norm takes the batch's statistics; make `batch_stats` mutable then.
          drop_path: the probability that an operation's output is dropped; needs the random
            stream `drop_path`.
        """
        outputs: jax.Array = self.network(inputs, train, drop_path)[0]
        return outputs


def Supernet(  # noqa: N802 (What it makes is one.)
    width: int = 16,
    cells: int = 8,
    nodes: int = 4,
    *,
    task: Task,
    stem: str = "cifar",
    formulation: str = "auto",
    precision: str = "auto",
    rematerialise: str = "none",
    **network: Any,
) -> supernet_lib.Supernet:
    """The DARTS supernet: a Flax module, called as module(inputs, alphas, train).

    Args:
      width: channels of the first cells, even.
      cells: at least 3; at a third and at two thirds of them the side is halved.
      nodes: of a cell; alphas have nodes * (nodes + 3) / 2 edges.
      task: whose head it has.
      stem: cifar (full resolution) or imagenet (an eighth).
      formulation: auto: the fastest on the backend; all compute the same.
      precision: float32, bfloat16, or auto: bfloat16 where there is an accelerator.
      rematerialise: cell: less memory, a forward pass more.
      network: other fields of a search's section config.network.

    Raises:
      UserError: a value is impossible.
    """
    config = schema.search()
    section = dict(width=width, cells=cells, nodes=nodes, stem=stem, **network)
    fill(config.network, section)
    config.search.update(formulation=formulation, rematerialise=rematerialise)
    config.precision = precision
    validation.validate(config)
    return supernet_lib.build_supernet(config.to_dict(), task)


def Network(  # noqa: N802
    cells: Cells | str,
    width: int = 36,
    depth: int = 20,
    classes: int = 10,
    *,
    stem: str = "cifar",
    space: str = "darts",
    task: Task | None = None,
    precision: str = "auto",
    **network: Any,
) -> Logits:
    """The discrete network of some cells: a Flax module, called as module(inputs, train=False).

    Args:
      cells: a genotype, a published one's name, a text of cells, or the path of a genotype.json.
      width: channels of the first cells, even.
      depth: how many cells are stacked.
      classes: of the classifier.
      stem: cifar (full resolution) or imagenet (an eighth).
      space: where the cells are from.
      task: whose head it has instead of a classifier's.
      precision: float32, bfloat16, or auto: bfloat16 where there is an accelerator.
      network: other fields of a training's section config.network, as `stacks`.

    Raises:
      UserError: there are no such cells, or a value is impossible.
    """
    config = schema.training()
    section = {"auxiliary_weight": 0.0, **network}
    section.update(genotype=str(cells), width=str(width), cells=depth, stem=stem, space=space)
    fill(config.network, section)
    config.precision = precision
    validation.validate(config)
    if task is None:
        task = tasks.task("classification", classes=classes)
    return Logits(build_network(config.to_dict(), task))


def fill(section: Any, values: Mapping[str, Any]) -> None:
    """Writes values into a section of a config; `UserError` for a key that it has not."""
    for key, value in values.items():
        if key not in section:
            raise UserError(f"{key}: no such argument; there are {', '.join(sorted(section))}")
        with section.ignore_type():
            section[key] = value
