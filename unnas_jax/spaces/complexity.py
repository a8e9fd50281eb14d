"""The parameters and multiply-adds of the network that a config describes."""

import dataclasses
import logging
from typing import Any

import flax.linen as nn
import jax

from unnas_jax.config import schema
from unnas_jax.config.options import Config
from unnas_jax.config.schema import SearchConfig
from unnas_jax.core.errors import UserError
from unnas_jax.data.registry import entry_of
from unnas_jax.layers.counting import Counts, answer, count
from unnas_jax.spaces import mixed, mixing, networks, single_path
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts import supernet as supernet_lib
from unnas_jax.spaces.registry import of_section as space_of
from unnas_jax.tasks import registry
from unnas_jax.tasks.base import Task, example_shapes

_LOG = logging.getLogger("unnas_jax")


@dataclasses.dataclass(frozen=True)
class _Facts:
    """The facts that tasks need of a dataset, without the dataset."""

    name: str
    num_classes: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


_ASSUMED = {"classification": 1000, "segmentation": 20}
"""Classes of folders that are not at hand."""


def _facts(config: Config, classes: int | None) -> _Facts:
    counted = schema.record(config)
    name, known = counted.dataset.name, entry_of(counted.dataset.name).classes
    assumed = _ASSUMED.get(counted.task.name)
    if classes is None and assumed and entry_of(name).takes_path:
        _LOG.warning("The folder's classes are not counted: taking %d, or give --classes.", assumed)
        known = assumed
    return _Facts(name, known if classes is None else classes)


def task_of(config: Config, classes: int | None = None) -> Task:
    """The task of a config, without its dataset: for its head, not for its examples.

    Args:
      config: a valid one.
      classes: of the dataset; None: as known by its name.

    Raises:
      UserError: the number of classes is needed and not known.
    """
    facts = _facts(config, classes)
    try:
        return registry.create(config, facts)
    except UserError as error:
        if facts.num_classes:
            raise
        raise UserError(
            f"config.dataset.name={facts.name!r}: its number of classes is not known here; "
            "give it with --classes"
        ) from error


def counted_size(config: Config, task: Task) -> tuple[int, int]:
    """Height and width of the inputs for which a config's network is counted: an evaluation's."""
    counted = schema.record(config)
    if counted.eval.crop == "whole":
        height, width = counted.eval.whole_size
        return height, width
    side = task.input_side(counted.input.crop)
    return side, side


def of_network(config: Config, task: Task, network: nn.Module) -> Counts:
    """The counts of the network of a valid config for one answer."""
    inputs = answer(network, (*counted_size(config, task), task.input_channels))
    if hasattr(network, "mix"):  # See `unnas_jax.spaces.mixed.Mixed`.
        section = schema.record(config).network
        operations = mixed.of_config(config).operations(section)
        alphas = jax.eval_shape(lambda: mixing.drawn(jax.random.key(0), 1.0, operations))
        return count(network, inputs, alphas, train=False)
    return count(network, inputs, train=False)


def of_config(config: Config, classes: int | None = None) -> dict[str, Any]:
    """The counts of the network that a valid config trains.

    Args:
      config: of a search or of a training.
      classes: of the dataset; None: as known by its name.

    Returns:
      The sums of `Counts.totals`, `width`, `input_size` (the side of what the network sees, in
      pixels; height and width of whole images), `inputs` (how many of those an answer takes) and
      `layers`, the single `Layer`s as dicts.

    Raises:
      UserError: the number of classes is needed and not known, or no such genotype.
    """
    c = schema.record(config)
    task = task_of(c, classes)
    # The format changes no count, and `auto` would start the backend.
    c = dataclasses.replace(c, precision="float32")
    network: Any
    if isinstance(c, SearchConfig) and c.network.space != "darts":
        alone = c.search.method == "single_path" or c.network.space not in mixed.SUPERNETS
        if alone:
            network = single_path.of_config(c).build(c, task).network
        else:
            search = dataclasses.replace(c.search, rematerialise="none")
            network = mixed.of_config(c).build(dataclasses.replace(c, search=search), task)
    elif isinstance(c, SearchConfig):
        # Every operation on every edge, as both of these forms compute it.
        known = candidates.are_darts(candidates.of_network(c.network))
        form = "depthwise" if known and not c.network.affine else "per_edge"
        search = dataclasses.replace(c.search, formulation=form, rematerialise="none")
        network = supernet_lib.build_supernet(dataclasses.replace(c, search=search), task)
    else:
        space_of(c.network).check_inputs(c.network, task, example_shapes(c, task))
        network = networks.build_network(c, task)
    counts = of_network(c, task, network)
    height, width = counted_size(c, task)
    return {
        **counts.totals(),
        "width": network.width,
        "input_size": height if height == width else [height, width],
        "inputs": getattr(network.head, "group", 1),
        "layers": [dataclasses.asdict(layer) for layer in counts.layers],
    }
