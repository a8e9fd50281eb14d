"""Discrete DARTS networks: a genotype's cells, stacked, with a task's head."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.layers.blocks import (
    Conv,
    FactorizedReduction,
    ReluConvBN,
    Stem,
    batch_norm,
    plan,
    uniform_fan_in,
)
from unnas_jax.spaces import stages
from unnas_jax.spaces.darts.genotype import Genotype, Pairs
from unnas_jax.spaces.darts.operations import BUILDERS, Identity


class Cell(nn.Module):
    """A discrete cell: every node sums two operations on earlier states.

    Attributes:
      pairs, concat: one half of a `Genotype`.
      channels: of every state; the output has len(concat) * channels.
      reduction: whether the edges from the two inputs have stride 2.
      reduce_input0: whether input 0 has twice the side of input 1.
    """

    pairs: Pairs
    concat: tuple[int, ...]
    channels: int
    reduction: bool
    reduce_input0: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, input0: jax.Array, input1: jax.Array, train: bool, drop_path: Any = None
    ) -> jax.Array:
        """`drop_path`: the probability that an operation's output is dropped, None for never."""
        before = FactorizedReduction if self.reduce_input0 else ReluConvBN
        states = [
            before(self.channels, dtype=self.dtype, name="preprocess0")(input0, train),
            ReluConvBN(self.channels, dtype=self.dtype, name="preprocess1")(input1, train),
        ]
        outputs = []
        for k, (operation, source) in enumerate(self.pairs):
            stride = 2 if self.reduction and source < 2 else 1
            module = BUILDERS[operation](
                channels=self.channels,
                stride=stride,
                affine=True,
                dtype=self.dtype,
                name=f"op_{k}",
            )
            output = module(states[source], train)
            if train and drop_path is not None and not isinstance(module, Identity):
                output = self._dropped(output, drop_path)
            outputs.append(output)
            if k % 2:
                states.append(outputs[k - 1] + outputs[k])
        return jnp.concatenate([states[state] for state in self.concat], axis=-1)

    def _dropped(self, x: jax.Array, probability: Any) -> jax.Array:
        """Zeros for some examples, and the others scaled so that the mean stays (Larsson, 2017)."""
        keep = 1.0 - jnp.asarray(probability, jnp.float32)
        kept = jax.random.bernoulli(self.make_rng("drop_path"), keep, (len(x), 1, 1, 1))
        return jnp.where(kept, x / keep.astype(x.dtype), jnp.zeros((), x.dtype))


class AuxiliaryHead(nn.Module):
    """A second classifier in the middle of the network (DARTS).

    ReLU, 5x5 mean pooling, 1x1 to 128, BN, ReLU, 2x2 to 768, BN, ReLU, linear. On 8x8 features
    (CIFAR) the pooling has stride 3; on 7x7 (ImageNet) 2, and the second BN is left out.
    """

    classes: int
    imagenet: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Features (N, H, W, C) to logits (N, classes)."""
        stride = 2 if self.imagenet else 3
        x = nn.avg_pool(nn.relu(x), (5, 5), (stride, stride))
        x = Conv(128, dtype=self.dtype, name="conv_0")(x)
        x = nn.relu(batch_norm(train=train, affine=True, dtype=self.dtype, name="bn_0")(x))
        x = nn.Conv(
            768,
            (2, 2),
            padding="VALID",
            use_bias=False,
            dtype=self.dtype,
            kernel_init=uniform_fan_in(4 * 128),
            name="conv_1",
        )(x)
        if not self.imagenet:
            x = batch_norm(train=train, affine=True, dtype=self.dtype, name="bn_1")(x)
        x = nn.relu(x).reshape(len(x), -1).astype(jnp.float32)
        return nn.Dense(
            self.classes,
            kernel_init=uniform_fan_in(x.shape[-1]),
            bias_init=uniform_fan_in(x.shape[-1]),
            name="linear",
        )(x)


class Network(nn.Module):
    """Stem, discrete cells, head.

    Attributes:
      head: a module from the cells' features to the task's outputs.
      auxiliary_classes: the classes of the auxiliary head on cell 2 * cells // 3; 0: none.
      single_reduction: reduce only at a third of the cells, as for segmentation; else also at two.
    """

    genotype: Genotype
    width: int
    cells: int
    stem: str
    head: nn.Module
    auxiliary_classes: int = 0
    single_reduction: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: jax.Array, train: bool, drop_path: Any = None
    ) -> tuple[jax.Array, jax.Array | None]:
        """The head's and the auxiliary head's outputs for inputs (N, H, W, channels).

        The auxiliary output is None where there is no such head and, after initialisation, in
        evaluation.
        """
        states = Stem(self.stem, self.width, dtype=self.dtype, name="stem")(
            inputs.astype(self.dtype), train
        )
        auxiliary, ends = None, []
        for index, cell in enumerate(cells_of(self)):
            if cell.reduction:
                ends.append(stages.end(self, states[1]))
            output = cell(*states, train, drop_path)
            states = (states[1], output)
            wanted = train or self.is_initializing()
            if index == 2 * self.cells // 3 and self.auxiliary_classes and wanted:
                auxiliary = AuxiliaryHead(
                    self.auxiliary_classes,
                    imagenet=self.stem != "cifar",
                    dtype=self.dtype,
                    name="auxiliary",
                )(output, train)
        ends.append(stages.end(self, states[1]))
        return self.head(stages.for_head(self.head, ends, states[1]), train), auxiliary


def cells_of(network: Network) -> list[Cell]:
    """The cells of a network from the first to the last."""
    cells = []
    for place in plan(network.width, network.cells, network.stem, network.single_reduction):
        kind = "reduce" if place.reduction else "normal"
        cells.append(
            Cell(
                pairs=getattr(network.genotype, kind),
                concat=getattr(network.genotype, f"{kind}_concat"),
                channels=place.channels,
                reduction=place.reduction,
                reduce_input0=place.reduce_input0,
                dtype=network.dtype,
                name=place.name,
            )
        )
    return cells
