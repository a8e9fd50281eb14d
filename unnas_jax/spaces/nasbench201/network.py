"""Networks of NAS-Bench-201: three stages of cells, with a task's head."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.layers.blocks import Conv, ReluConvBN, batch_norm
from unnas_jax.layers.pooling import avg_pool
from unnas_jax.spaces import stages
from unnas_jax.spaces.nasbench201.spec import NODES, Spec

STAGES = 3

KERNELS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
"""The sides of the kernels of the operations with weights: ReLU, convolution, batch norm."""


class Cell(nn.Module):
    """One cell: every node sums the outputs of its edges from earlier nodes.

    Edges with `none`, and nodes that nothing enters, are zeros.
    """

    spec: Spec
    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, channels) to the same."""
        states = [x]
        for node in range(1, NODES):
            state = jnp.zeros_like(x)
            for source, operation in self.spec.entering(node):
                if operation in KERNELS:
                    kernel = (KERNELS[operation],) * 2
                    name = f"edge_{source}_{node}"
                    layer = ReluConvBN(self.channels, kernel, dtype=self.dtype, name=name)
                    state += layer(states[source], train)
                elif operation == "avg_pool_3x3":
                    state += avg_pool(states[source], 3, 1, 1)
                elif operation == "skip_connect":
                    state += states[source]
            states.append(state)
        return states[-1]


class Reduction(nn.Module):
    """A residual block that halves the sides (He et al., 2016, in the benchmark's form).

    Two times ReLU, 3x3 convolution, batch norm, the first with stride 2, beside a 2x2 mean pooling
    and a 1x1 convolution.
    """

    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to (N, H / 2, W / 2, channels); H and W must be even."""
        beside = avg_pool(x, 2, 2, 0)
        beside = Conv(self.channels, dtype=self.dtype, name="shortcut")(beside)
        for k, stride in enumerate((2, 1)):
            x = ReluConvBN(self.channels, (3, 3), stride, dtype=self.dtype, name=f"block_{k}")(
                x, train
            )
        return beside + x


class Stem(nn.Module):
    """A 3x3 convolution and batch norm."""

    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to (N, H, W, channels)."""
        x = Conv(self.channels, (3, 3), dtype=self.dtype, name="convolution")(x)
        return batch_norm(train=train, affine=True, dtype=self.dtype, name="bn")(x)


class Network(nn.Module):
    """Stem, three stages of cells with a reduction before the second and third, BN, ReLU, head.

    Attributes:
      spec: the cell.
      head: a module from the last features to the task's outputs.
      width: the channels of the stem and of the first stage; a reduction doubles them.
      cells_each: the cells of a stage, 5 in the benchmark.
    """

    spec: Spec
    head: nn.Module
    width: int = 16
    cells_each: int = 5
    dtype: Any = jnp.float32

    @property
    def cells(self) -> int:
        """The number of cells, reductions not counted."""
        return STAGES * self.cells_each

    @nn.compact
    def __call__(
        self, inputs: jax.Array, train: bool, drop_path: Any = None
    ) -> tuple[jax.Array, None]:
        """The head's outputs for inputs (N, H, W, channels), and None: there is no auxiliary head.

        `drop_path` must be None: this space has no such regularisation.
        """
        if drop_path is not None:
            raise ValueError("networks of NAS-Bench-201 have no drop path")

        def cell(x: jax.Array, channels: int, name: str) -> jax.Array:
            return Cell(self.spec, channels, self.dtype, name=name)(x, train)

        return self.head(features(self, inputs, train, cell), train), None


def features(
    network: Any, inputs: jax.Array, train: bool, cell: Callable[[jax.Array, int, str], jax.Array]
) -> Any:
    """The features that the head of a network gets; called within its `__call__`.

    Args:
      network: has the attributes of `Network`.
      inputs: (N, H, W, channels).
      train: whether batch norms use the batch's statistics.
      cell: called with a cell's input, its channels and its name.

    Returns:
      (N, H / 4, W / 4, 4 * width), or the ends of the stages; see `stages.for_head`.
    """
    width, dtype = network.width, network.dtype
    x = Stem(width, dtype, name="stem")(inputs.astype(dtype), train)
    ends = []
    for stage in range(STAGES):
        channels = width * 2**stage
        if stage:
            x = Reduction(channels, dtype, name=f"reduction_{stage}")(x, train)
        for k in range(network.cells_each):
            x = cell(x, channels, f"stage_{stage}_cell_{k}")
        ends.append(stages.end(network, x))
    last = nn.relu(batch_norm(train=train, affine=True, dtype=dtype, name="bn")(x))
    return stages.for_head(network.head, ends, last)
