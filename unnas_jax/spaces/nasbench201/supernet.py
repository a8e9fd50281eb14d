"""All networks of NAS-Bench-201 in one program: a single-path supernet.

Every edge has weights for every operation, and the path through them is data, not structure: XLA
compiles once for all 15,625 cells, and each costs what its own operations cost. With shared weights
it is the supernet of single-path search (Guo et al., 2020); with the weights of one cell (`place`)
it computes the same as `Network`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.layers.blocks import ReluConvBN
from unnas_jax.layers.pooling import avg_pool
from unnas_jax.spaces.choice import Choice, Pool, Same, Zeros
from unnas_jax.spaces.nasbench201 import network
from unnas_jax.spaces.nasbench201.network import KERNELS
from unnas_jax.spaces.nasbench201.spec import EDGES, NODES, OPERATIONS, Spec

COLLECTION = "path"
"""The collection of variables that holds the path: `operations`, int32 (6,), see `path`."""


def edge(channels: int, dtype: Any, name: str, *, affine: bool = True) -> Choice:
    """The operation of an edge, by its number in `OPERATIONS`; `affine` as of `ReluConvBN`."""
    layers: dict[str, nn.Module] = {
        "none": Zeros(),
        "skip_connect": Same(),
        "avg_pool_3x3": Pool(avg_pool),
    }
    for operation, side in KERNELS.items():
        layers[operation] = ReluConvBN(channels, (side, side), affine=affine, dtype=dtype)
    return Choice(tuple((operation, layers[operation]) for operation in OPERATIONS), name=name)


class Cell(nn.Module):
    """A cell with a path through it; called as `network.Cell` is."""

    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, operations: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, channels) to the same; `operations` as in `path`."""
        states = [x]
        for node in range(1, NODES):
            entering = [
                edge(self.channels, self.dtype, f"edge_{source}_{node}")(
                    states[source], operations[EDGES.index((source, node))], train
                )
                for source in range(node)
            ]
            states.append(sum(entering[1:], start=entering[0]))
        return states[-1]


class Supernet(nn.Module):
    """`network.Network` with a path, a variable, in the place of a cell."""

    head: nn.Module
    width: int = 16
    cells_each: int = 5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> tuple[jax.Array, None]:
        """As `network.Network`'s."""
        shape = (len(EDGES),)
        operations = self.variable(COLLECTION, "operations", jnp.zeros, shape, jnp.int32).value

        def cell(x: jax.Array, channels: int, name: str) -> jax.Array:
            return Cell(channels, self.dtype, name=name)(x, operations, train)

        return self.head(network.features(self, inputs, train, cell), train), None


def path(spec: Spec) -> dict[str, np.ndarray]:
    """The variables in `COLLECTION` with which a supernet computes the same as a cell's network."""
    return {"operations": np.array(spec.numbers(), np.int32)}


def place(spec: Spec, name: Sequence[str]) -> tuple[str, ...]:
    """Where a cell's `Supernet` keeps the variable that its `Network` has at a place."""
    operation = dict(zip(EDGES, spec.operations, strict=True))
    return tuple(
        step
        for part in name
        for step in (
            (part, operation[int(part[5]), int(part[7])]) if part.startswith("edge_") else (part,)
        )
    )
