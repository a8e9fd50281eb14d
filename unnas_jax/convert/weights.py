"""The variables of a network from the tensors of the PyTorch release's, and back; NumPy only."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from unnas_jax.config import schema
from unnas_jax.config.options import Config
from unnas_jax.config.schema import SearchConfig
from unnas_jax.convert.names import Path, Slot, slots
from unnas_jax.core.errors import UserError
from unnas_jax.data.registry import entry_of
from unnas_jax.spaces import complexity, networks
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts import supernet as supernet_lib
from unnas_jax.tasks.base import example_shapes

COUNTER = "num_batches_tracked"
"""The number of training batches that a batch norm of the release has seen. Nothing reads it."""

_LAST_STATISTIC = "running_var"  # The entry after which the counter of a batch norm comes.

# Copies of the same statistics differ by the rounding of their sums, not by more.
_SAME = {"rtol": 1e-3, "atol": 1e-4}


def _plain(config: Any) -> Config:
    """A `ConfigDict` as a dict, any other config as it is."""
    plain: Config = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else config
    return plain


def _shapes(config: Config, classes: int | None) -> dict[Path, Any]:
    """The shapes of the variables of a config's network, alphas included, by path."""
    # `auto` would start the backend.
    c = dataclasses.replace(schema.record(config), precision="float32")
    task = complexity.task_of(c, classes)
    inputs = example_shapes(c, task).inputs
    if isinstance(c, SearchConfig):
        section = c.network
        if not candidates.are_darts(candidates.of_network(section)):
            raise UserError(
                "config.network.operations: the PyTorch release has only the eight operations of "
                "DARTS on every edge; a supernet of others cannot be brought over"
            )
        others = {"space": "darts", "partial_channels": 1, "auxiliary_skip": False, "affine": False}
        for key, plain in others.items():
            value = getattr(section, key)
            if value != plain:
                raise UserError(
                    f"config.network.{key}={value!r}: the PyTorch release has only the supernet of "
                    "DARTS; another one cannot be brought over"
                )
        search = dataclasses.replace(c.search, formulation="depthwise")
        supernet = supernet_lib.build_supernet(dataclasses.replace(c, search=search), task)

        def init(key: jax.Array) -> Any:
            alphas = supernet_lib.init_alphas(key, section.nodes, 1.0)
            variables = supernet.lazy_init(key, inputs, alphas, train=False)
            return {**variables, "alphas": alphas}
    else:
        network = networks.build_network(c, task)

        def init(key: jax.Array) -> Any:
            return network.lazy_init(key, inputs, train=False)

    flat: dict[Path, Any] = traverse_util.flatten_dict(jax.eval_shape(init, jax.random.key(0)))
    return flat


@dataclasses.dataclass(frozen=True)
class Layout:
    """The two forms of a network side by side.

    Attributes:
      flat: the shapes of the variables here, by path.
      slots: the release's tensors.
    """

    flat: Mapping[Path, Any]
    slots: Sequence[Slot]

    @property
    def parameters(self) -> list[Slot]:
        """The parameters of the weights' optimizer, in its order."""
        return [slot for slot in self.slots if slot.path[0] == "params"]


def layout(config: Config, state_dict: Mapping[str, Any]) -> Layout:
    """The layout of a config's network; `state_dict` only tells the number of classes.

    Args:
      config: a valid one of a search or of a training.
      state_dict: the release's tensors, for datasets whose name does not tell their classes.
    """
    flat = _shapes(config, _classes(config, state_dict))
    return Layout(flat, slots(config, flat))


def layout_of(variables: Mapping[str, Any], config: Config) -> Layout:
    """The layout of a network whose variables are there; `UserError` if some are missing."""
    flat = traverse_util.flatten_dict(dict(variables))
    try:
        return Layout(flat, slots(config, flat))
    except KeyError as error:
        raise UserError(f"variables: {error} is missing; is the config theirs?") from error


def _classes(config: Config, state_dict: Mapping[str, Any]) -> int | None:
    """The classes of a dataset whose name does not tell them: as many as the last layer has."""
    if entry_of(schema.record(config).dataset.name).classes:
        return None
    last = ("classifier.classifier.bias", "classifier.classifier.classifier.3.bias")
    sizes = [len(value) for name, value in state_dict.items() if name.endswith(last)]
    return sizes[0] if sizes else None


def _check_names(given: Collection[str], expected: Collection[str], what: str) -> None:
    """Raises `UserError` for the first name that is missing, or that has no place."""
    for problem, names in (
        ("is missing", [name for name in expected if name not in given]),
        ("has no place in this network", [name for name in given if name not in expected]),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise UserError(
                f"{what}: {names[0]}{more} {problem}; is the config that of this network?"
            )


def read(
    tensors: Mapping[str, np.ndarray],
    wanted: Sequence[Slot],
    flat: Mapping[Path, Any],
    what: str,
) -> dict[str, Any]:
    """The tree of the leaves that some slots fill, from the tensors of the same names.

    Where several slots share elements, the first one's values are taken, and the others must be
    the same up to rounding.

    Args:
      tensors: with exactly the names of the slots.
      wanted: the slots, all that fill a leaf or none of them.
      flat: the shapes of the leaves, by path.
      what: where the tensors come from, for messages.

    Raises:
      UserError: names the tensor that is missing, extra, misshapen, not of floating point numbers,
        or that differs from one that is shared here.
    """
    _check_names(tensors.keys(), {slot.name: None for slot in wanted}.keys(), what)
    leaves: dict[Path, np.ndarray] = {}
    written: dict[Path, np.ndarray] = {}
    for slot in wanted:
        shape = flat[slot.path].shape
        leaf = leaves.setdefault(slot.path, np.zeros(shape, np.float32))
        target = slot.view(leaf)
        done = slot.view(written.setdefault(slot.path, np.zeros(shape, bool)))
        tensor = np.asarray(tensors[slot.name])
        if tensor.shape != target.shape:
            raise UserError(
                f"{what}: {slot.name} has the shape {tensor.shape}, and in this network "
                f"{target.shape}; is the config that of this network?"
            )
        if not np.issubdtype(tensor.dtype, np.floating):
            raise UserError(f"{what}: {slot.name} is of {tensor.dtype}; expected floating point")
        if not done.any():
            target[...], done[...] = tensor, True
        elif not np.allclose(tensor, target, **_SAME, equal_nan=True):
            raise UserError(
                f"{what}: {slot.name} differs by up to {np.max(np.abs(tensor - target)):.3g} from "
                "the statistics of the same pooling on another edge; here one pooling serves all "
                "edges that leave a state, so this network cannot be had"
            )
    tree: dict[str, Any] = traverse_util.unflatten_dict(leaves)
    return tree


def write(tree: Mapping[str, Any], wanted: Sequence[Slot]) -> dict[str, np.ndarray]:
    """The tensors of some slots, by name, from a tree of leaves: the inverse of `read`."""
    flat = traverse_util.flatten_dict(dict(tree))
    leaves = {path: np.asarray(flat[path]) for path in {slot.path for slot in wanted}}
    return {slot.name: np.array(slot.view(leaves[slot.path])) for slot in wanted}


def _counter(name: str) -> str:
    """The counter of the batch norm whose last statistic has a name."""
    return f"{name.removesuffix(_LAST_STATISTIC)}{COUNTER}"


def params_from_torch(state_dict: Mapping[str, np.ndarray], config: Config) -> dict[str, Any]:
    """The variables here of a network of the release.

    Args:
      state_dict: the release's `model_state`: arrays by name. Names that end in
        `num_batches_tracked` may be absent.
      config: the network's config here, a `ConfigDict` or a dict; `unnas_jax.convert.config`
        makes one of the release's.

    Returns:
      `params` and `batch_stats`, as the network's module takes them, of a supernet also `alphas`
      (`normal` and `reduce`), all float32; and `counters`, which only `params_to_torch` reads.

    Raises:
      UserError: names the tensor that is missing, extra or misshapen.
    """
    return variables(state_dict, layout(_plain(config), state_dict))


def variables(state_dict: Mapping[str, np.ndarray], of: Layout) -> dict[str, Any]:
    """`params_from_torch` for a layout that is known."""
    counters = {_counter(s.name) for s in of.slots if s.name.endswith(_LAST_STATISTIC)}
    tensors = {name: value for name, value in state_dict.items() if name not in counters}
    tree = read(tensors, of.slots, of.flat, "model_state")
    counts = [int(state_dict[name]) for name in counters if name in state_dict]
    if counts:
        # Every batch norm sees every batch: they are equal.
        tree["counters"] = {COUNTER: np.asarray(max(counts), np.int64)}
    return tree


def params_to_torch(variables: Mapping[str, Any], config: Config) -> dict[str, np.ndarray]:
    """The release's `model_state` of a network here: the inverse of `params_from_torch`.

    Args:
      variables: `params`, `batch_stats` and, of a supernet, `alphas`: arrays. Without `counters`
        the release's `num_batches_tracked` are 0.
      config: the network's config.

    Returns:
      Arrays by name, in the order of the release's `state_dict`.

    Raises:
      UserError: the variables are not those of the config's network.
    """
    rest = {name: tree for name, tree in variables.items() if name != "counters"}
    count = np.asarray(variables.get("counters", {}).get(COUNTER, 0), np.int64)
    of = layout_of(rest, _plain(config))
    paths = {"/".join(slot.path): None for slot in of.slots}
    _check_names({"/".join(path): None for path in of.flat}.keys(), paths.keys(), "variables")
    result: dict[str, np.ndarray] = {}
    for name, tensor in write(rest, of.slots).items():
        result[name] = tensor
        if name.endswith(_LAST_STATISTIC):
            result[_counter(name)] = count
    return result
