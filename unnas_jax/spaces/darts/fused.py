"""The fused forms of a supernet's cell: DARTS' eight operations, computed by source state.

All edges that leave one state share its ReLU and its poolings, and their convolutions are batched
over the target nodes. The result is that of the plain definition, `per_edge`, up to rounding.
"""

import collections
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.core import sharding
from unnas_jax.layers.blocks import (
    BatchNormOfParts,
    chwn,
    depthwise_conv,
    shifted,
    uniform_fan_in,
)
from unnas_jax.layers.counting import WEIGHTED_SUM
from unnas_jax.layers.pooling import avg_pool, max_pool
from unnas_jax.spaces import partial
from unnas_jax.spaces.darts.candidates import OPERATIONS, edges
from unnas_jax.spaces.darts.joining import Joining, from_all, from_each
from unnas_jax.spaces.darts.per_edge import Cell, Skips

CONVOLUTIONS = (
    ("sep_conv_3x3", 3, 1),
    ("sep_conv_5x5", 5, 1),
    ("dil_conv_3x3", 3, 2),
    ("dil_conv_5x5", 5, 2),
)
"""The convolutions of an edge as (operation, kernel, dilation), in the order of `OPERATIONS`."""
SEPARABLE = tuple(name for name, _, dilation in CONVOLUTIONS if dilation == 1)
DILATED = tuple(name for name, _, dilation in CONVOLUTIONS if dilation == 2)


def _column(weights: jax.Array, operation: str) -> jax.Array:
    """An operation's weights on all edges: one column of (E, operations)."""
    return weights[:, OPERATIONS.index(operation)]


def _pools(x: jax.Array, stride: int) -> list[jax.Array]:
    return [max_pool(x, 3, stride, 1), avg_pool(x, 3, stride, 1)]


class SourceEdges(nn.Module):
    """All edges that leave one state of a cell, to `targets` nodes.

    Two forms compute the same function of the same parameters. Nothing lies between a depthwise and
    its pointwise convolution, so `dense` runs both as one convolution, whose kernel is the product
    of theirs; it keeps nothing between them and suits matrix units. The depthwise form runs them
    one after the other, needs far fewer multiply-adds, and suits CPUs. The layouts differ: dense
    convolutions take images with the channels last. In the depthwise form channels come first and
    images last, (C, H, W, N): convolutions over channels or pixels are then matrix products without
    a transposition, and arrays are concatenated and split by operation or edge in contiguous
    memory.

    Attributes:
      targets: the number E of edges.
      channels: the channels C of every state of the cell.
      stride: 2 on the edges from a reduction cell's inputs, otherwise 1.
      dense: which form.
      auxiliary_skip: whether every edge has one more skip connection.
    """

    targets: int
    channels: int
    stride: int
    dense: bool
    auxiliary_skip: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, weights: jax.Array, train: bool, skips: Skips | None = None
    ) -> list[jax.Array]:
        """The mixed operations' outputs, one for each target node.

        Args:
          x: the state, (N, H, W, C) or, in the depthwise form, (C, H, W, N).
          weights: (E, operations), the softmax of the edges' alphas.
          train: whether batch norm uses the batch's statistics.
          skips: the weight of the auxiliary skips.

        Returns:
          E arrays of x's layout, of sides H / stride and W / stride.
        """
        auxiliary = None
        if self.auxiliary_skip:
            auxiliary = (skips or {}).get("auxiliary", jnp.ones(()))
        if auxiliary is not None and self.stride == 1:  # It equals the operation skip_connect.
            own = jax.nn.one_hot(OPERATIONS.index("skip_connect"), len(OPERATIONS))
            weights = weights + auxiliary * own[None]
        form = self._dense if self.dense else self._depthwise
        return form(x, weights, auxiliary, train)

    def _reductions(self, weights: jax.Array, auxiliary: jax.Array | None) -> list[tuple[str, Any]]:
        """The names of the skips that halve the sides, and their factors, (E * C,)."""
        own = [("skip", self._by_channel(weights, "skip_connect"))]
        if auxiliary is None:
            return own
        return [*own, ("auxiliary_skip", jnp.full(self.targets * self.channels, auxiliary))]

    def _dense(
        self, x: jax.Array, weights: jax.Array, auxiliary: jax.Array | None, train: bool
    ) -> list[jax.Array]:
        few = sharding.platform() == "tpu" and len(x) < 128
        joining = Joining(self.targets, self.channels, few)
        separable, dilated = (
            joining.factors_of_pairs([self._by_channel(weights, name) for name in names])
            for names in (SEPARABLE, DILATED)
        )
        x = joining.state(x)
        positive = nn.relu(x)
        first = self._first_halves(joining, positive, [1.0] * len(separable) + dilated, train)
        between, by_edge = first[: len(separable)], first[len(separable) :]
        second = self._second_halves(joining, between, separable, train)
        if joining.paired:
            second, by_edge = ([joining.sum_of_pair(pair)] for (pair,) in (second, by_edge))
        # One pooling serves all edges: without scale and bias their BNs are equal too.
        pools = self._norm(_pools(x, self.stride), "bn_pool", train)
        shared = dict(zip(("max_pool_3x3", "avg_pool_3x3"), pools, strict=True))
        if self.stride == 1:
            shared["skip_connect"] = x
        else:
            for name, factor in self._reductions(weights, auxiliary):
                reduced = [self._reduce(positive, name)]
                by_edge += self._norm(reduced, f"bn_{name}", train, [factor])
        joined = jnp.concatenate(list(shared.values()), axis=-1)
        outputs: list[jax.Array] = []
        for number, group in enumerate(joining.groups):
            # What is shared goes to every edge with its weight, as a matrix product.
            spread = [
                jnp.kron(_column(weights, name)[None, group], jnp.eye(self.channels))
                for name in shared
            ]
            output = jnp.einsum("nhwc,cd->nhwd", joined, jnp.concatenate(spread).astype(self.dtype))
            output += sum(second[number :: len(joining.groups)])
            output += sum(joining.of_edges(x, group) for x in by_edge)
            outputs += map(joining.state, jnp.split(output, group.stop - group.start, axis=-1))
        return outputs

    def _first_halves(
        self, joining: Joining, positive: jax.Array, factors: list[Any], train: bool
    ) -> list[jax.Array]:
        """All operations' first convolutions, normalised, times their factors."""
        kernels = self._products(joining, "first")
        dilations = [1, 2] if joining.paired else [1, 1, 2, 2]
        convolved = [
            joining.convolve(positive, from_all(by_edge), dilation, self.stride)
            for by_edge, dilation in zip(kernels, dilations, strict=True)
        ]
        return self._norm(convolved, "bn_first", train, factors)

    def _second_halves(
        self, joining: Joining, first: list[jax.Array], factors: list[jax.Array], train: bool
    ) -> list[jax.Array]:
        """The separable operations' second convolutions, by operation and `joining.units`."""
        convolved = [
            joining.convolve(nn.relu(joining.of_edges(x, unit)), from_each(by_edge[unit]), 1, 1)
            for x, by_edge in zip(first, self._products(joining, "second"), strict=True)
            for unit in joining.units
        ]
        by_unit = [joining.of_edges(factor, unit) for factor in factors for unit in joining.units]
        return self._norm(convolved, "bn_second", train, by_unit)

    def _products(self, joining: Joining, half: str) -> list[list[jax.Array]]:
        """(k, k, C, C) of each operation and edge: the product of its two kernels."""
        kernels = [
            [
                (depthwise[:, :, k, :, None] * pointwise[None, None, k]).astype(self.dtype)
                for k in range(self.targets)
            ]
            for depthwise, pointwise in self._kernels(half)
        ]
        return joining.kernels_of_pairs(kernels)

    def _norm(
        self, parts: list[jax.Array], name: str, train: bool, factors: list[Any] | None = None
    ) -> list[jax.Array]:
        # Each convolution's output by itself: a concatenation would copy them.
        return BatchNormOfParts(dtype=self.dtype, name=name)(parts, train, factors)

    def _depthwise(
        self, x: jax.Array, weights: jax.Array, auxiliary: jax.Array | None, train: bool
    ) -> list[jax.Array]:
        edges, channels = self.targets, self.channels

        def norm(x: jax.Array, name: str, factor: jax.Array | float = 1.0) -> jax.Array:
            # One batch norm for all, because each takes time to compile.
            return BatchNormOfParts(axis=0, dtype=self.dtype, name=name)([x], train, [factor])[0]

        def convolve(inputs: list[jax.Array], half: str, stride: int) -> jax.Array:
            # (operations * E * C, H / stride, W / stride, N), operation by operation.
            kernels, mixers = zip(*self._kernels(half), strict=True)
            x = jnp.concatenate(
                [
                    depthwise_conv(
                        x,
                        kernel.reshape(*kernel.shape[:2], -1).astype(self.dtype),
                        stride=stride,
                        dilation=dilation if half == "first" else 1,
                    )
                    for x, kernel, (_, _, dilation) in zip(
                        inputs, kernels, CONVOLUTIONS, strict=False
                    )
                ]
            )
            mixer = jnp.concatenate(mixers).astype(self.dtype)
            # One axis for all pixels of all images: contracting several, XLA would transpose.
            mixed = jnp.einsum("gcd,gcp->gdp", mixer, x.reshape(len(mixer), channels, -1))
            return mixed.reshape(x.shape)

        positive = nn.relu(x)
        copies = [jnp.tile(positive, (edges, 1, 1, 1))] * len(CONVOLUTIONS)
        factors = jnp.ones(2 * edges * channels), self._by_channel(weights, *DILATED)
        first = convolve(copies, "first", self.stride)
        first = norm(first, "bn_first", jnp.concatenate(factors))
        separable, dilated = jnp.split(first, 2)
        second = convolve(jnp.split(nn.relu(separable), 2), "second", 1)
        second = norm(second, "bn_second", self._by_channel(weights, *SEPARABLE))
        summed = [*jnp.split(second, 2), *jnp.split(dilated, 2)]
        shared = [norm(jnp.concatenate(_pools(x, self.stride)), "bn_pool")]
        names = ["max_pool_3x3", "avg_pool_3x3"]
        if self.stride == 1:
            shared.append(x)  # The same on every edge, like the poolings.
            names.append("skip_connect")
        else:
            summed += [
                norm(self._reduce(positive, name), f"bn_{name}", factor)
                for name, factor in self._reductions(weights, auxiliary)
            ]
        # What is shared goes to every edge with its weight, as a matrix product.
        spread = jnp.stack([_column(weights, name) for name in names])
        joined = jnp.concatenate(shared).reshape(len(names), -1)
        with jax.named_scope(WEIGHTED_SUM):
            output = jnp.einsum("se,sp->ep", spread.astype(self.dtype), joined)
        return jnp.split(output.reshape(summed[0].shape) + sum(summed), edges)

    def _by_channel(self, weights: jax.Array, *names: str) -> jax.Array:
        """The factors of operations' outputs on all edges, (operations * E * C,)."""
        columns = jnp.concatenate([_column(weights, name) for name in names])
        return jnp.repeat(columns, self.channels)

    def _reduce(self, x: jax.Array, name: str) -> jax.Array:
        """The factorized reductions of all edges before BN, E * C channels in x's layout."""
        name = "skip_connect" if name == "skip" else name  # As the operation.
        half = self.channels // 2
        shape = (self.channels, self.targets, half)
        init = uniform_fan_in(self.channels)
        kernels = [self.param(f"{name}_conv_{k}", init, shape) for k in (1, 2)]
        if self.dense:
            # The pixels that either convolution takes are two corners of a 2x2 window.
            empty = jnp.zeros_like(kernels[0])
            corners = (kernels[0], empty), (empty, empty), (empty, empty), (empty, kernels[1])
            window = jnp.stack([jnp.concatenate(corner, axis=-1) for corner in corners])
            return jax.lax.conv_general_dilated(
                x,
                window.reshape(2, 2, self.channels, -1).astype(self.dtype),
                (2, 2),
                [(0, side % 2) for side in x.shape[1:3]],
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        outputs = [
            jnp.einsum("chwn,ced->edhwn", image[:, ::2, ::2], kernel.astype(self.dtype))
            for image, kernel in zip((x, shifted(x)), kernels, strict=True)
        ]
        x = jnp.concatenate(outputs, axis=1)
        return x.reshape(-1, *x.shape[2:])

    def _kernels(self, half: str) -> list[tuple[jax.Array, jax.Array]]:
        """The depthwise (k, k, E, C) and pointwise (E, C, C) kernels of operations on all edges.

        Args:
          half: `first` for all four operations, `second` for the second half of the separable
            ones, which has no stride and no dilation.
        """
        edges, channels = self.targets, self.channels
        return [
            (
                self.param(
                    f"{operation}_{half}_depthwise",
                    uniform_fan_in(size * size),
                    (size, size, edges, channels),
                ),
                self.param(
                    f"{operation}_{half}_pointwise",
                    uniform_fan_in(channels),
                    (edges, channels, channels),
                ),
            )
            for operation, size, _ in CONVOLUTIONS
            if half == "first" or operation.startswith("sep")
        ]


class FusedCell(Cell, kw_only=True):
    """A cell in a fused form.

    Attributes:
      dense: which form of `SourceEdges`.
    """

    dense: bool

    @nn.compact
    def __call__(
        self,
        input0: jax.Array,
        input1: jax.Array,
        weights: jax.Array,
        train: bool,
        skips: Skips | None = None,
    ) -> jax.Array:
        """See `Cell`."""
        kept = self.edges_kept(len(input0), len(weights), train, skips)
        states = self.inputs(input0, input1, train)
        if not self.dense:
            states = [chwn(state) for state in states]
        axis = -1 if self.dense else 0
        rows = edges(self.nodes)
        sums: list[Any] = [0] * self.nodes
        around: list[Any] = [0] * self.nodes
        for source, module in enumerate(sources_of(self)):
            leaving = np.array([k for k, (state, _) in enumerate(rows) if state == source])
            targets, own = [rows[k][1] for k in leaving], weights[leaving]
            part, rest = states[source], None
            if self.parts > 1:
                part, rest = partial.parted(part, self.parts, axis)
            outputs, factors = module(part, own, train, skips), own.sum(1).astype(self.dtype)
            if kept is not None:  # Of the images, along their axis.
                shape = (len(leaving), *((-1, 1, 1, 1) if self.dense else (1, 1, 1, -1)))
                by_image = kept.T[leaving].astype(self.dtype).reshape(shape)
                outputs = [x * factor for x, factor in zip(outputs, by_image, strict=True)]
                factors = factors[:, None, None, None, None] * by_image
            for node, output in zip(targets, outputs, strict=True):
                sums[node] = sums[node] + output
            if rest is not None:
                # Once for all edges, with the weight of each; each node is shuffled once, not each
                # edge.
                rest = partial.bypassed(rest, module.stride)
                for node, factor in zip(targets, factors, strict=True):
                    around[node] = around[node] + factor * rest
            if source > 0:
                # All edges into node source - 1 have been added.
                node = source - 1
                state = sums[node]
                if self.parts > 1:
                    state = partial.shuffled([state, around[node]], self.parts, axis)
                states.append(state)
        if self.dense:
            return jnp.concatenate(states[2:], axis=-1)
        return chwn(jnp.concatenate(states[2:]))


def sources_of(cell: FusedCell) -> list[SourceEdges]:
    """The edges of a cell by the state that they leave: its inputs, then all nodes but the last."""
    leaving = collections.Counter(source for source, _ in edges(cell.nodes))
    return [
        SourceEdges(
            targets=leaving[source],
            channels=cell.channels // cell.parts,
            stride=2 if cell.reduction and source < 2 else 1,
            dense=cell.dense,
            auxiliary_skip=cell.auxiliary_skip,
            dtype=cell.dtype,
            name=f"source_{source}",
        )
        for source in range(cell.nodes + 1)
    ]
