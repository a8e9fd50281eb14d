"""The supernet of NAS-Bench-201 that mixes all five operations of every edge by alphas.

As in the benchmark's searches batch norms of operations have neither scale nor bias, and a pooling
is not followed by one (Dong and Yang, 2020). Two forms compute the same: `per_edge` by the
definition, and `dense` by source node, whose edges share a ReLU, a pooling and a convolution of
each kernel.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.layers.blocks import BatchNormOfParts, Conv, ReluConvBN
from unnas_jax.layers.pooling import avg_pool
from unnas_jax.spaces import mixing, partial
from unnas_jax.spaces.darts.operations import by_image
from unnas_jax.spaces.darts.per_edge import Skips
from unnas_jax.spaces.nasbench201 import network, supernet
from unnas_jax.spaces.nasbench201.network import KERNELS
from unnas_jax.spaces.nasbench201.spec import EDGES, KIND, NODES, OPERATIONS

FORMULATIONS = ("dense", "per_edge")


def _column(weights: jax.Array, operation: str) -> jax.Array:
    """An operation's weights: one column of (..., operations)."""
    return weights[..., OPERATIONS.index(operation)]


class Edge(nn.Module):
    """An edge by the definition: the weighted sum of its operations.

    Attributes:
      channels: of the input and the output.
      one: compute the operation of the largest weight alone.
    """

    channels: int
    one: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, weights: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) and weights (5,) to the same shape."""
        if self.one:
            index = jnp.argmax(weights)
            chosen = supernet.edge(self.channels, self.dtype, "chosen", affine=False)
            alone: jax.Array = weights[index] * chosen(x, index, train)
            return alone
        total = _column(weights, "skip_connect") * x
        total += _column(weights, "avg_pool_3x3") * avg_pool(x, 3, 1, 1)
        for operation, side in KERNELS.items():
            layer = ReluConvBN(
                self.channels, (side, side), affine=False, dtype=self.dtype, name=operation
            )
            total += _column(weights, operation) * layer(x, train)
        return total


class SourceEdges(nn.Module):
    """All edges that leave a node, computed together; see `Edge`.

    Attributes:
      targets: the number E of edges.
      channels: of the input and of every output.
    """

    targets: int
    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, weights: jax.Array, train: bool) -> list[jax.Array]:
        """(N, H, W, C) and weights (E, 5) to E arrays of the same shape."""
        positive = nn.relu(x)
        convolved = [
            Conv(self.targets * self.channels, (side, side), dtype=self.dtype, name=operation)(
                positive
            )
            for operation, side in KERNELS.items()
        ]
        factors = [
            jnp.repeat(_column(weights, operation).astype(jnp.float32), self.channels)
            for operation in KERNELS
        ]
        parts = BatchNormOfParts(dtype=self.dtype, name="bn")(convolved, train, factors)
        learned = jnp.split(sum(parts[1:], start=parts[0]), self.targets, axis=-1)
        pooled = avg_pool(x, 3, 1, 1)
        return [
            own + _column(row, "skip_connect") * x + _column(row, "avg_pool_3x3") * pooled
            for own, row in zip(learned, weights, strict=True)
        ]


class Cell(nn.Module):
    """A cell whose edges mix their operations.

    Attributes:
      channels: of every node.
      dense: which form; else edge by edge.
      one: see `Edge`; not of the dense form.
      parts: K of `unnas_jax.spaces.partial`; 1: edges work on all channels.
      auxiliary_skip: whether every edge has one more skip connection (DARTS-).
    """

    channels: int
    dense: bool
    one: bool = False
    parts: int = 1
    auxiliary_skip: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, weights: jax.Array, train: bool, skips: Skips | None = None
    ) -> jax.Array:
        """(N, H, W, channels) and weights (6, 5) to the same shape as x."""
        skips, kept = skips or {}, None
        if train and "drop_path" in skips:
            keep = 1.0 - skips["drop_path"]
            draws = by_image(jax.random.uniform, self.make_rng("noise"), (len(x), len(EDGES)))
            kept = jnp.where(draws < keep, 1.0 / keep, 0.0).astype(self.dtype)
        weights = weights.astype(self.dtype)
        entering: dict[int, list[jax.Array]] = {node: [] for node in range(1, NODES)}
        for source in range(NODES - 1):
            state = sum(entering[source][1:], start=entering[source][0]) if source else x
            outputs = self._leaving(source, state, weights, train, skips)
            for target, output in outputs.items():
                if kept is not None:
                    output = output * kept[:, EDGES.index((source, target)), None, None, None]
                entering[target].append(output)
        last = entering[NODES - 1]
        return sum(last[1:], start=last[0])

    def _leaving(
        self, source: int, x: jax.Array, weights: jax.Array, train: bool, skips: Skips
    ) -> dict[int, jax.Array]:
        """The outputs of the edges that leave a node, by the node that they enter."""
        targets = range(source + 1, NODES)
        part, rest = partial.parted(x, self.parts, -1) if self.parts > 1 else (x, None)
        channels = self.channels // self.parts
        rows = jnp.stack([weights[EDGES.index((source, target))] for target in targets])
        if self.dense:
            edges = SourceEdges(len(targets), channels, self.dtype, name=f"edges_{source}")
            outputs = edges(part, rows, train)
        else:
            outputs = [
                Edge(channels, self.one, self.dtype, name=f"edge_{source}_{target}")(
                    part, row, train
                )
                for target, row in zip(targets, rows, strict=True)
            ]
        if self.auxiliary_skip:
            auxiliary = skips.get("auxiliary", jnp.ones(())).astype(self.dtype)
            outputs = [output + auxiliary * part for output in outputs]
        if rest is not None:
            # The weights of an edge sum to the weight of the edge itself, which the bypass gets.
            outputs = [
                partial.shuffled([output, jnp.sum(row) * rest], self.parts, -1)
                for output, row in zip(outputs, rows, strict=True)
            ]
        return dict(zip(targets, outputs, strict=True))


class Supernet(nn.Module):
    """`network.Network` whose cells mix all operations; see `unnas_jax.spaces.mixed.Mixed`.

    Attributes:
      head, width, cells_each: as of `network.Network`.
      formulation: one of `FORMULATIONS`.
      one: compute one operation an edge; `per_edge` only.
      mix: alphas -> weights and `Skips`; None: `mixing.softmax`.
      parts, auxiliary_skip: see `Cell`.
      rematerialise: keep only the cells' inputs for the backward pass and compute each cell again.
    """

    head: nn.Module
    width: int = 16
    cells_each: int = 5
    formulation: str = "dense"
    one: bool = False
    mix: Callable[[mixing.Alphas], Mapping[str, jax.Array]] | None = None
    parts: int = 1
    auxiliary_skip: bool = False
    rematerialise: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array, alphas: mixing.Alphas, train: bool) -> Any:
        """The head's outputs for inputs (N, H, W, channels)."""
        weights = mixing.softmax(alphas) if self.mix is None else self.mix(alphas)
        skips = {name: value for name, value in weights.items() if name != KIND}
        # The arguments of a cell after itself: input, weights, train, skips.
        kind: Any = nn.remat(Cell, static_argnums=(3,)) if self.rematerialise else Cell

        def cell(x: jax.Array, channels: int, name: str) -> jax.Array:
            own = kind(
                channels=channels,
                dense=self.formulation == "dense",
                one=self.one,
                parts=self.parts,
                auxiliary_skip=self.auxiliary_skip,
                dtype=self.dtype,
                name=name,
            )
            output: jax.Array = own(x, weights[KIND], train, skips)
            return output

        return self.head(network.features(self, inputs, train, cell), train)
