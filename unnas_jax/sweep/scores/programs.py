"""Networks to score: compiled programs, as few as the space allows, and fresh variables."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.spaces.darts import network as darts
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.nasbench101 import network as nasbench101
from unnas_jax.spaces.nasbench101 import padded
from unnas_jax.spaces.nasbench101.spec import Spec as Cell101
from unnas_jax.spaces.nasbench201 import network as nasbench201
from unnas_jax.spaces.nasbench201 import supernet
from unnas_jax.spaces.nasbench201.spec import Spec as Cell201
from unnas_jax.sweep.scores import weights
from unnas_jax.sweep.scores.weights import Flat, Path


class Classifier(nn.Module):
    """Logits of the pooled features: `tasks.heads.ImageHead` in a precision of one's own."""

    classes: int = 10
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to (N, classes)."""
        del train
        return nn.Dense(self.classes, dtype=self.dtype, name="linear")(
            jnp.mean(features, axis=(1, 2))
        )


class Features(nn.Module):
    """The features themselves, in the place of a head."""

    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to the same."""
        del train
        return features


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of the networks by which cells are judged.

    Attributes:
      width: channels of the stem; for DARTS a third of it.
      depth: cells of a stage: modules of a stack in NAS-Bench-101, 3 in the benchmark; cells of a
        stage in NAS-Bench-201, 5 there; a third of all cells for DARTS.
      side: of the images, in pixels.
    """

    width: int = 16
    depth: int = 3
    side: int = 32


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program for many networks, which differ in variables only.

    Attributes:
      network: called as network(inputs, train); jitted functions take it as a static argument.
      own: the network of one cell, whose variables are drawn.
      cell: variables that say which cell it is, by collection; empty if `network` is `own`.
      place: from a path in `own`, without its collection, to that in `network`.
    """

    network: nn.Module
    own: nn.Module
    cell: dict[str, Any]
    place: Callable[[Path], Path]


def own_network(cell: Any, head: nn.Module, size: Size, dtype: Any = jnp.float32) -> nn.Module:
    """The network of a cell: of `Genotype`, or of either benchmark's `Spec`."""
    width, depth = size.width, size.depth
    if isinstance(cell, Cell201):
        return nasbench201.Network(cell, head, width, depth, dtype=dtype)
    if isinstance(cell, Cell101):
        return nasbench101.Network(cell.pruned(), head, width, modules=depth, dtype=dtype)
    if not isinstance(cell, Genotype):
        raise TypeError(f"no network for cells of the type {type(cell).__name__}")
    return darts.Network(cell, width, 3 * depth, stem="cifar", head=head, dtype=dtype)


def program(cell: Any, head: nn.Module, size: Size, dtype: Any = jnp.float32) -> Program:
    """The program of a cell: of `Genotype`, or of either benchmark's `Spec`."""
    return of_network(own_network(cell, head, size, dtype))


def of_network(own: nn.Module) -> Program:
    """The program that computes what a cell's own network does; that network's, if there is none.

    There are programs for many cells of NAS-Bench-201, and of NAS-Bench-101 with the stem for
    small images.
    """
    if isinstance(own, nasbench201.Network):
        cell201 = own.spec
        return Program(
            supernet.Supernet(own.head, own.width, own.cells_each, dtype=own.dtype),
            own,
            {supernet.COLLECTION: supernet.path(cell201)},
            functools.partial(supernet.place, cell201),
        )
    if isinstance(own, nasbench101.Network) and own.stem == "cifar":
        cell101, size = own.spec.pruned(), (own.width, own.stacks, own.modules)
        return Program(
            padded.Network(padded.feeding(cell101), own.head, *size, dtype=own.dtype),
            own,
            {padded.COLLECTION: padded.cell(cell101, own.width, own.stacks)},
            functools.partial(padded.place, cell101),
        )
    return Program(own, own, {}, lambda path: path)


_templates: dict[Any, dict[Path, jax.ShapeDtypeStruct]] = {}


def variables(
    program: Program,
    side: int,
    rng: np.random.Generator,
    kernels: weights.Kernels = weights.uniform_fan_in,
) -> dict[str, Any]:
    """Fresh variables of a program's network for RGB images of a side.

    They equal those of the cell's own network, so that sharing programs changes no score.
    """
    drawn: Flat = weights.draw(weights.shapes(program.own, (side, side, 3)), rng, kernels)
    if program.cell:
        key = program.network, side
        if key not in _templates:
            _templates[key] = weights.shapes(program.network, (side, side, 3))
        drawn = weights.placed(drawn, _templates[key], program.place)
    return {**weights.tree(drawn), **program.cell}
