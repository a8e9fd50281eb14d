"""Networks of NAS-Bench-101: stacks of modules, each a cell, with a task's head."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.layers.blocks import Conv, batch_norm
from unnas_jax.layers.pooling import max_pool
from unnas_jax.spaces import stages
from unnas_jax.spaces.nasbench101.spec import Matrix, Spec


class ConvBNRelu(nn.Module):
    """Convolution, batch norm, ReLU."""

    channels: int
    kernel: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to (N, ceil(H / stride), ceil(W / stride), channels)."""
        x = Conv(
            self.channels,
            (self.kernel, self.kernel),
            (self.stride, self.stride),
            dtype=self.dtype,
            name="convolution",
        )(x)
        return nn.relu(batch_norm(train=train, affine=True, dtype=self.dtype, name="bn")(x))


KERNELS = {"conv1x1": 1, "conv3x3": 3}
"""The sides of the convolutions' kernels; the third operation is a 3x3 max pooling at stride 1."""


def vertex_channels(matrix: Matrix, ins: int, outs: int) -> list[int]:
    """The channels of every vertex of a pruned cell (Ying et al., appendix).

    The vertices that feed the output share its channels equally, the first ones taking the
    remainder; every other vertex between has as many as the widest vertex that it feeds.
    """
    last = len(matrix) - 1
    channels = [0] * len(matrix)
    channels[0], channels[last] = ins, outs
    feeding = [vertex for vertex in range(1, last) if matrix[vertex][last]]
    for place, vertex in enumerate(feeding):
        channels[vertex] = outs // len(feeding) + (place < outs % len(feeding))
    for vertex in range(last - 1, 0, -1):
        if vertex not in feeding:
            fed = [target for target in range(vertex + 1, last) if matrix[vertex][target]]
            channels[vertex] = max(channels[target] for target in fed)
    return channels


class Module(nn.Module):
    """One cell: every vertex sums what feeds it and applies its operation.

    Edges from the input are 1x1 projections; other edges leave out the last channels that the
    vertex has no room for (at most one). The output concatenates the vertices that feed it, and
    adds the projected input where an edge leads straight from input to output.

    Attributes:
      spec: a pruned cell.
      channels: of the output.
    """

    spec: Spec
    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to (N, H, W, channels)."""
        matrix, last = self.spec.matrix, len(self.spec.matrix) - 1
        channels = vertex_channels(matrix, x.shape[-1], self.channels)

        def projected(vertex: int) -> jax.Array:
            name = f"input_op_{vertex}"
            return ConvBNRelu(channels[vertex], 1, dtype=self.dtype, name=name)(x, train)

        states: dict[int, jax.Array] = {}
        for vertex in range(1, last):
            fed_by = [source for source in range(1, vertex) if matrix[source][vertex]]
            parts = [states[source][..., : channels[vertex]] for source in fed_by]
            if matrix[0][vertex]:
                parts.append(projected(vertex))
            state = sum(parts[1:], start=parts[0])
            operation, name = self.spec.operations[vertex], f"vertex_op_{vertex}"
            if operation in KERNELS:
                state = ConvBNRelu(
                    channels[vertex], KERNELS[operation], dtype=self.dtype, name=name
                )(state, train)
            else:
                state = max_pool(state, 3, 1, 1)
            states[vertex] = state
        outputs = [states[vertex] for vertex in range(1, last) if matrix[vertex][last]]
        if not outputs:
            return projected(last)
        output = jnp.concatenate(outputs, axis=-1)
        return output + projected(last) if matrix[0][last] else output


class Network(nn.Module):
    """Stem, stacks of modules, head (Ying et al., section 2.2).

    Between stacks a 2x2 max pooling halves the sides (an odd one is rounded down), and the
    channels double.

    Attributes:
      spec: the cell; it is pruned here.
      head: a module from the last features to the task's outputs.
      width: the channels of the stem and of the first stack.
      stacks, modules: how many, and how many modules each stack has.
      stem: `cifar`: a 3x3 convolution. `imagenet`: three of stride 2, to width / 2, width, width.
    """

    spec: Spec
    head: nn.Module
    width: int = 128
    stacks: int = 3
    modules: int = 3
    stem: str = "cifar"
    dtype: Any = jnp.float32

    @property
    def cells(self) -> int:
        """The number of modules."""
        return self.stacks * self.modules

    @nn.compact
    def __call__(
        self, inputs: jax.Array, train: bool, drop_path: Any = None
    ) -> tuple[jax.Array, None]:
        """The head's outputs for inputs (N, H, W, channels), and None: there is no auxiliary head.

        `drop_path` must be None: this space has no such regularisation.
        """
        if drop_path is not None:
            raise ValueError("networks of NAS-Bench-101 have no drop path")
        x = inputs.astype(self.dtype)
        for layer in stem_of(self):
            x = layer(x, train)
        ends = []
        for index, stack in enumerate(stacks_of(self)):
            if index:
                x = max_pool(x, 2, 2, 0)
            for module in stack:
                x = module(x, train)
            ends.append(stages.end(self, x))
        return self.head(stages.for_head(self.head, ends, x), train), None


def stem_of(network: Any) -> list[ConvBNRelu]:
    """The layers before the first module, of a network with the attributes of `Network`."""
    width = network.width
    plan = [(width, 1)] if network.stem == "cifar" else [(width // 2, 2), (width, 2), (width, 2)]
    return [
        ConvBNRelu(channels, 3, stride, network.dtype, name=f"stem_{k}")
        for k, (channels, stride) in enumerate(plan)
    ]


def stacks_of(network: Network) -> list[list[Module]]:
    """The modules of every stack, in order of execution."""
    spec = network.spec.pruned()
    return [
        [
            Module(
                spec, network.width * 2**stack, network.dtype, name=f"stack_{stack}_module_{module}"
            )
            for module in range(network.modules)
        ]
        for stack in range(network.stacks)
    ]
