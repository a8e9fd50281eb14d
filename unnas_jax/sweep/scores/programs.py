"""Networks to score: compiled programs, as few as the space allows, and fresh variables."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.spaces.darts import network as darts
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.nasbench101 import network as nasbench101
from unnas_jax.spaces.nasbench101.spec import Spec as Cell101
from unnas_jax.spaces.nasbench201 import network as nasbench201
from unnas_jax.spaces.nasbench201.spec import Spec as Cell201
from unnas_jax.spaces.programs import Flat, Path, Program, of_network, placed
from unnas_jax.sweep.scores import weights


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
        drawn = placed(drawn, _templates[key], program.place)
    return {**weights.tree(drawn), **program.cell}
