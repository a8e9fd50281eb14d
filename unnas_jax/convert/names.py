"""Maps tensors of the PyTorch release to parts of parameters here.

The map is a list of `Slot`s in the order of the release's `state_dict`, read in both directions.
The release names modules, not parameters: `net_.cells.3._ops.5.op.1.weight`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from unnas_jax.config import schema
from unnas_jax.config.options import Config
from unnas_jax.config.schema import Common, SearchConfig, TrainConfig
from unnas_jax.core.errors import UserError
from unnas_jax.layers.blocks import plan
from unnas_jax.spaces.darts import published
from unnas_jax.spaces.darts.candidates import OPERATIONS, edges
from unnas_jax.spaces.darts.fused import CONVOLUTIONS
from unnas_jax.spaces.nasbench101 import space as nasbench101
from unnas_jax.spaces.nasbench101.network import KERNELS
from unnas_jax.tasks import registry

Path = tuple[str, ...]
"""Where a leaf is in a tree of variables, from the collection (`params`) down."""

Flat = Mapping[Path, Any]
"""A tree of variables by path: arrays or shapes."""

View = Callable[[np.ndarray], np.ndarray]
"""From a leaf to the part of it that one tensor of the release holds, in the release's layout.

The result must be a NumPy view, not a copy: importing writes through it."""


@dataclasses.dataclass(frozen=True)
class Slot:
    """One tensor of the release.

    Attributes:
      name: in the release's `state_dict`.
      path: of the leaf here that holds it.
      view: the part of the leaf.
    """

    name: str
    path: Path
    view: View


def _same(leaf: np.ndarray) -> np.ndarray:
    return leaf


def _conv_layout(leaf: np.ndarray) -> np.ndarray:
    """(k, k, in, out) as (out, in, k, k); `in` is 1 for depthwise convolutions."""
    return leaf.transpose(3, 2, 0, 1)


def _linear_layout(leaf: np.ndarray) -> np.ndarray:
    """(in, out) as (out, in)."""
    return leaf.T


def _part(first: int, size: int) -> View:
    return lambda leaf: leaf[first : first + size]


def _layer(name: str, path: Path, layout: View, flat: Flat) -> Iterator[Slot]:
    """A convolution or linear layer, with its bias if it has one."""
    yield Slot(f"{name}.weight", ("params", *path, "kernel"), layout)
    if ("params", *path, "bias") in flat:
        yield Slot(f"{name}.bias", ("params", *path, "bias"), _same)


def _conv(name: str, path: Path, flat: Flat) -> Iterator[Slot]:
    """A `unnas_jax.layers.blocks.Conv`."""
    return _layer(name, (*path, "conv"), _conv_layout, flat)


def _norm(name: str, path: Path, flat: Flat, view: View = _same) -> Iterator[Slot]:
    """A batch norm: its own, or a part of one that several of the release share."""
    for theirs, ours in (("weight", "scale"), ("bias", "bias")):
        if ("params", *path, ours) in flat:
            yield Slot(f"{name}.{theirs}", ("params", *path, ours), view)
    for theirs, ours in (("running_mean", "mean"), ("running_var", "var")):
        yield Slot(f"{name}.{theirs}", ("batch_stats", *path, ours), view)


def _conv_norm(name: str, conv: str, norm: str, path: Path, flat: Flat) -> Iterator[Slot]:
    """A `ReluConvBN`; `conv` and `norm` are the release's names within the module."""
    yield from _conv(f"{name}.{conv}", (*path, "convolution"), flat)
    yield from _norm(f"{name}.{norm}", (*path, "bn"), flat)


def _reduction(name: str, path: Path, flat: Flat) -> Iterator[Slot]:
    """A factorized reduction."""
    yield from _conv(f"{name}.conv_1", (*path, "conv_1"), flat)
    yield from _conv(f"{name}.conv_2", (*path, "conv_2"), flat)
    yield from _norm(f"{name}.bn", (*path, "bn"), flat)


def _stem(kind: str, flat: Flat) -> Iterator[Slot]:
    """The layers before the first cell."""
    places = [("stem.0", "stem.1")]
    if kind == "imagenet":
        places = [("stem0.0", "stem0.1"), ("stem0.3", "stem0.4"), ("stem1.1", "stem1.2")]
    for k, (conv, norm) in enumerate(places):
        yield from _conv(f"net_.{conv}", ("stem", f"conv_{k}"), flat)
        yield from _norm(f"net_.{norm}", ("stem", f"bn_{k}"), flat)


def _preprocessing(name: str, path: Path, flat: Flat) -> Iterator[Slot]:
    """The layers that bring a cell's two inputs to its channels."""
    for side in ("preprocess0", "preprocess1"):
        if ("params", *path, side, "conv_1", "conv", "kernel") in flat:
            yield from _reduction(f"{name}.{side}", (*path, side), flat)
        else:
            yield from _conv_norm(f"{name}.{side}", "op.1", "op.2", (*path, side), flat)


# The release's operations: DARTS' and those of cells published by others.
_RELEASED = (
    *OPERATIONS,
    "sep_conv_7x7",
    "conv_1x1",
    "conv_3x3",
    "conv_3x1_1x3",
    "conv_7x1_1x7",
    "max_pool_2x2",
    "max_pool_5x5",
    "max_pool_7x7",
    "avg_pool_2x2",
    "avg_pool_5x5",
    "dil_sep_conv_3x3",
)


def _operation(operation: str, stride: int, name: str, path: Path, flat: Flat) -> Iterator[Slot]:
    """An operation of a discrete cell."""
    if operation not in _RELEASED:
        raise UserError(
            f"genotype: the PyTorch release has no operation {operation!r}; a network with it "
            "cannot be brought over"
        )
    if operation == "skip_connect":
        if stride == 2:
            yield from _reduction(name, path, flat)
    elif operation in ("conv_1x1", "conv_3x3"):
        yield from _conv_norm(name, "1", "2", path, flat)
    elif operation in ("conv_3x1_1x3", "conv_7x1_1x7"):
        yield from _conv(f"{name}.1", (*path, "row"), flat)
        yield from _conv(f"{name}.2", (*path, "column"), flat)
        yield from _norm(f"{name}.3", (*path, "bn"), flat)
    elif "conv" in operation:
        repeats = 1 if operation.startswith("dil_conv") else 2
        for half in range(repeats):
            first = 1 + 4 * half
            yield from _conv(f"{name}.op.{first}", (*path, f"depthwise_{half}"), flat)
            yield from _conv(f"{name}.op.{first + 1}", (*path, f"pointwise_{half}"), flat)
            yield from _norm(f"{name}.op.{first + 2}", (*path, f"bn_{half}"), flat)


def _mixed_edge(name: str, path: Path, place: int, count: int, flat: Flat) -> Iterator[Slot]:
    """One edge of a supernet's cell.

    Args:
      name: of the edge in the release.
      path: of the `SourceEdges` that it is a part of.
      place, count: which of that module's edges it is, and of how many.
    """
    channels = flat["batch_stats", *path, "bn_pool", "mean"].shape[0] // 2

    def pointwise(leaf: np.ndarray) -> np.ndarray:
        """(edges, in, out) as (out, in, 1, 1)."""
        return leaf[place].T[:, :, None, None]

    def depthwise(leaf: np.ndarray) -> np.ndarray:
        """(k, k, edges, C) as (C, 1, k, k)."""
        return leaf[:, :, place].transpose(2, 0, 1)[:, None]

    def skip(leaf: np.ndarray) -> np.ndarray:
        """(C, edges, C / 2) as (C / 2, C, 1, 1)."""
        return leaf[:, place].T[:, :, None, None]

    def of_group(group: int) -> View:
        """A batch norm over groups of all edges' channels."""
        return _part((group * count + place) * channels, channels)

    for number, operation in enumerate(OPERATIONS):
        prefix = f"{name}._ops.{number}"
        if operation in ("max_pool_3x3", "avg_pool_3x3"):
            # The same for all edges of the source: every one of the release's is a copy.
            first = 0 if operation.startswith("max") else channels
            view = _part(first, channels)
            yield from _norm(f"{prefix}.1", (*path, "bn_pool"), flat, view)
        elif operation == "skip_connect":
            if ("params", *path, "skip_connect_conv_1") in flat:
                for conv in ("conv_1", "conv_2"):
                    leaf = ("params", *path, f"skip_connect_{conv}")
                    yield Slot(f"{prefix}.{conv}.weight", leaf, skip)
                yield from _norm(f"{prefix}.bn", (*path, "bn_skip"), flat, of_group(0))
        elif operation != "none":
            group = [row[0] for row in CONVOLUTIONS].index(operation)
            halves = ("first", "second") if operation.startswith("sep") else ("first",)
            for k, half in enumerate(halves):
                op, kernel = f"{prefix}.op", f"{operation}_{half}"
                leaf = ("params", *path, f"{kernel}_depthwise")
                yield Slot(f"{op}.{1 + 4 * k}.weight", leaf, depthwise)
                leaf = ("params", *path, f"{kernel}_pointwise")
                yield Slot(f"{op}.{2 + 4 * k}.weight", leaf, pointwise)
                norm = (*path, f"bn_{half}")
                yield from _norm(f"{op}.{3 + 4 * k}", norm, flat, of_group(group))


def _supernet(config: SearchConfig, flat: Flat) -> Iterator[Slot]:
    section = config.network
    for kind in ("normal", "reduce"):
        yield Slot(f"net_.alphas_{kind}", ("alphas", kind), _same)
    yield from _stem(section.stem, flat)
    rows = edges(section.nodes)
    for cell in range(section.cells):
        name, path = f"net_.cells.{cell}", (f"cell_{cell}",)
        yield from _preprocessing(name, path, flat)
        for edge, (source, _) in enumerate(rows):
            leaving = [k for k, row in enumerate(rows) if row[0] == source]
            yield from _mixed_edge(
                f"{name}._ops.{edge}",
                (*path, f"source_{source}"),
                leaving.index(edge),
                len(leaving),
                flat,
            )
    yield from _head("net_.classifier.classifier", config, flat)


def _darts(config: TrainConfig, flat: Flat) -> Iterator[Slot]:
    section = config.network
    genotype = published.resolve(section.genotype)
    single = registry.of_config(config).single_reduction
    yield from _stem(section.stem, flat)
    # The width changes no name.
    for index, place in enumerate(plan(2, section.cells, section.stem, single)):
        name, path = f"net_.cells.{index}", (place.name,)
        yield from _preprocessing(name, path, flat)
        pairs = genotype.reduce if place.reduction else genotype.normal
        for k, (operation, source) in enumerate(pairs):
            stride = 2 if place.reduction and source < 2 else 1
            yield from _operation(operation, stride, f"{name}._ops.{k}", (*path, f"op_{k}"), flat)
    if section.auxiliary_weight:
        name, path = "net_.auxiliary_head", ("auxiliary",)
        yield from _conv(f"{name}.features.2", (*path, "conv_0"), flat)
        yield from _norm(f"{name}.features.3", (*path, "bn_0"), flat)
        yield from _layer(f"{name}.features.5", (*path, "conv_1"), _conv_layout, flat)
        if ("params", *path, "bn_1", "scale") in flat:
            yield from _norm(f"{name}.features.6", (*path, "bn_1"), flat)
        yield from _layer(f"{name}.classifier", (*path, "linear"), _linear_layout, flat)
    yield from _head("net_.classifier.classifier", config, flat)


def _conv_bn_relu(name: str, path: Path, flat: Flat) -> Iterator[Slot]:
    """A layer of a NAS-Bench-101 network."""
    yield from _conv(f"{name}.conv_bn_relu.0", (*path, "convolution"), flat)
    yield from _norm(f"{name}.conv_bn_relu.1", (*path, "bn"), flat)


def _nasbench101(config: TrainConfig, flat: Flat) -> Iterator[Slot]:
    section = config.network
    stem = ["stem.conv3x3"] if section.stem == "cifar" else [f"stem.{k}" for k in range(3)]
    for k, name in enumerate(stem):
        yield from _conv_bn_relu(name, (f"stem_{k}",), flat)
    spec = nasbench101.resolve(section.genotype).pruned()
    layer = 0
    for stack in range(section.stacks):
        layer += stack > 0  # The pooling between two stacks.
        for module in range(section.modules):
            name, path = f"layers.{layer}", (f"stack_{stack}_module_{module}",)
            for vertex, operation in enumerate(spec.operations):
                if operation in KERNELS:
                    vertex_op = f"{name}.vertex_op.{vertex}.{operation}"
                    yield from _conv_bn_relu(vertex_op, (*path, f"vertex_op_{vertex}"), flat)
            for vertex, entry in enumerate(spec.matrix[0]):
                if entry:
                    input_op = f"{name}.input_op.{vertex}.conv1x1"
                    yield from _conv_bn_relu(input_op, (*path, f"input_op_{vertex}"), flat)
            layer += 1
    yield from _head("classifier.classifier", config, flat)


def _head(name: str, config: Common, flat: Flat) -> Iterator[Slot]:
    """The task's last layers."""
    if ("params", "head", "linear", "kernel") in flat:
        # Also for the jigsaw: features are counted tile by tile on both sides.
        yield from _layer(name, ("head", "linear"), _linear_layout, flat)
    elif ("params", "head", "conv", "kernel") in flat:
        yield from _layer(name, ("head", "conv"), _conv_layout, flat)
    else:
        rates = [f"rate_{rate}" for rate in config.task.aspp_rates]
        if len(rates) not in (1, 3):
            raise UserError(
                f"config.task.aspp_rates={tuple(config.task.aspp_rates)}: the PyTorch "
                "release has one rate or three"
            )
        branches = {"aspp1": "pixel", "aspp5": "image"}
        branches |= {f"aspp{k}": rate for k, rate in enumerate(rates, start=2)}
        for theirs in sorted(branches):
            ours = branches[theirs]
            yield from _conv(f"{name}.{theirs}.0", ("head", f"conv_{ours}"), flat)
            yield from _norm(f"{name}.{theirs}.1", ("head", f"bn_{ours}"), flat)
        yield from _conv(f"{name}.classifier.0", ("head", "conv_join"), flat)
        yield from _norm(f"{name}.classifier.1", ("head", "bn_join"), flat)
        last = ("head", "classifier", "conv")
        yield from _layer(f"{name}.classifier.3", last, _conv_layout, flat)


def slots(config: Config, flat: Flat) -> list[Slot]:
    """Every tensor of the release's network of a config, but for the counts of its batch norms.

    Args:
      config: a valid one.
      flat: the network's variables here, or their shapes.

    Returns:
      The slots in the order of the release's `state_dict`. Together they cover every element of
      `flat`: once, but for the poolings' statistics in a supernet, which all edges of a source
      share here.
    """
    c = schema.record(config)
    if isinstance(c, SearchConfig):
        return list(_supernet(c, flat))
    spaces = {"darts": _darts, "nasbench101": _nasbench101}
    return list(spaces[c.network.space](c, flat))
