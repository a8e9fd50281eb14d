"""The plain definition of a supernet's cell: every operation on every edge by itself, then summed.

It takes any operations. The fused forms (`fused`) are held to it by the tests.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.layers.blocks import FactorizedReduction, ReluConvBN, batch_norm
from unnas_jax.spaces.darts.operations import BUILDERS, Pool


def preprocessed(
    input0: jax.Array,
    input1: jax.Array,
    train: bool,
    *,
    channels: int,
    reduce_input0: bool,
    dtype: Any,
) -> list[jax.Array]:
    """The first two states of a cell, in whose `__call__` this runs: its inputs, alike in size."""
    before = FactorizedReduction if reduce_input0 else ReluConvBN
    settings: dict[str, Any] = {"affine": False, "dtype": dtype}
    return [
        before(channels, name="preprocess0", **settings)(input0, train),
        ReluConvBN(channels, name="preprocess1", **settings)(input1, train),
    ]


class MixedOperation(nn.Module):
    """An edge: the weighted sum of all its operations (DARTS, equation 2).

        sum over o of weight(o) o(x)

    Batch norms have neither scale nor bias, and a pooling is followed by one: otherwise operations
    could rescale what the weights are to tell.

    Attributes:
      operations: names of `BUILDERS`.
      channels: of the input and the output.
      stride: of both axes.
    """

    operations: tuple[str, ...]
    channels: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, weights: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) and the operations' weights to (N, ceil(H / stride), ..., C)."""
        total: Any = 0
        for name, weight in zip(self.operations, weights.astype(self.dtype), strict=False):
            operation = BUILDERS[name](
                channels=self.channels,
                stride=self.stride,
                affine=False,
                dtype=self.dtype,
                name=name,
            )
            output = operation(x, train)
            if isinstance(operation, Pool):
                norm = batch_norm(train=train, affine=False, dtype=self.dtype, name=f"{name}_bn")
                output = norm(output)
            total = total + weight * output
        return total


class PlainCell(nn.Module):
    """A cell: every node is the sum of its edges from all earlier states (DARTS, equation 1).

        x(j) = sum over i < j of edge(i, j)(x(i))

    Attributes:
      operations: of every edge, node by node.
      channels: the channels C of every state; the output has nodes * C.
      nodes: how many.
      reduction: whether the edges from the two inputs have stride 2.
      reduce_input0: whether input 0 has twice the side of input 1.
    """

    operations: tuple[tuple[str, ...], ...]
    channels: int
    nodes: int
    reduction: bool
    reduce_input0: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, input0: jax.Array, input1: jax.Array, weights: jax.Array, train: bool
    ) -> jax.Array:
        """Weights (edges, operations): the softmax of this kind of cell's alphas."""
        states = preprocessed(
            input0,
            input1,
            train,
            channels=self.channels,
            reduce_input0=self.reduce_input0,
            dtype=self.dtype,
        )
        rows = iter(zip(self.operations, weights, strict=True))
        for node in range(self.nodes):
            total: Any = 0
            for source, state in enumerate(states):
                operations, row = next(rows)
                edge = MixedOperation(
                    operations,
                    self.channels,
                    stride=2 if self.reduction and source < 2 else 1,
                    dtype=self.dtype,
                    name=f"edge_{source}_{node}",
                )
                total = total + edge(state, row, train)
            states.append(total)
        return jnp.concatenate(states[2:], axis=-1)
