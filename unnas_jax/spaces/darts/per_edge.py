"""The plain definition of a supernet's cell: every operation on every edge by itself, then summed.

It takes any operations. Tests compare the fused forms (`fused`) with it.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.layers.blocks import FactorizedReduction, ReluConvBN, batch_norm
from unnas_jax.spaces import partial
from unnas_jax.spaces.choice import Choice
from unnas_jax.spaces.darts.operations import BUILDERS, Pool, by_image

Skips = Mapping[str, jax.Array]
"""Numbers by which remedies change skip connections and edges of a supernet, float32 scalars:

- `auxiliary`: the weight of one more skip on every edge besides the mixed operations (DARTS-), 1 if
  it is not there;
- `dropout`: the probability that a value of a skip of stride 1 is dropped in training (P-DARTS);
- `drop_path`: the probability that an edge's whole output is dropped in training, for an image.
"""


def candidate(
    x: jax.Array,
    train: bool,
    *,
    operation: str,
    channels: int,
    stride: int,
    affine: bool,
    dtype: Any,
) -> jax.Array:
    """The output of an operation for x; called within the `__call__` of a module.

    Batch norms have neither scale nor bias, and a pooling is followed by one: otherwise operations
    could rescale their outputs, and weights would not be comparable.
    """
    module = BUILDERS[operation](
        channels=channels, stride=stride, affine=affine, dtype=dtype, name=operation
    )
    output: jax.Array = module(x, train)
    if isinstance(module, Pool):
        norm = batch_norm(train=train, affine=affine, dtype=dtype, name=f"{operation}_bn")
        output = norm(output)
    return output


class Alone(nn.Module):
    """A `candidate` as a module.

    Attributes:
      operation: a name of `BUILDERS`.
      channels: of the input and the output.
      stride: of both axes.
      affine: see `candidate`.
    """

    operation: str
    channels: int
    stride: int
    affine: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to (N, ceil(H / stride), ..., C)."""
        return candidate(
            x,
            train,
            operation=self.operation,
            channels=self.channels,
            stride=self.stride,
            affine=self.affine,
            dtype=self.dtype,
        )


class MixedOperation(nn.Module):
    """An edge: the weighted sum of all its operations (DARTS, equation 2).

        sum over o of weight(o) o(x)

    Attributes:
      operations: names of `BUILDERS`.
      channels: of the input and the output.
      stride: of both axes.
      parts: K of `partial`; 1: all channels are worked on.
      auxiliary_skip: whether there is one more skip connection.
      one: compute one operation alone, that of the largest weight; none if all weights are 0.
      affine: see `candidate`.
    """

    operations: tuple[str, ...]
    channels: int
    stride: int
    parts: int = 1
    auxiliary_skip: bool = False
    one: bool = False
    affine: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, weights: jax.Array, train: bool, skips: Skips | None = None
    ) -> jax.Array:
        """(N, H, W, C) and the operations' weights to (N, ceil(H / stride), ..., C)."""
        weights, skips = weights.astype(self.dtype), skips or {}
        part, rest = partial.parted(x, self.parts, -1) if self.parts > 1 else (x, None)
        total = (self._one if self.one else self._all)(part, weights, train, skips)
        if self.auxiliary_skip:
            skip = BUILDERS["skip_connect"](
                channels=self.channels // self.parts,
                stride=self.stride,
                affine=False,
                dtype=self.dtype,
                name="auxiliary_skip",
            )
            weight = skips.get("auxiliary", jnp.ones(())).astype(self.dtype)
            total = total + weight * skip(part, train)
        if rest is None:
            return total
        # The weights of an edge sum to the weight of the edge itself, which the bypass gets.
        around = jnp.sum(weights) * partial.bypassed(rest, self.stride)
        return partial.shuffled([total, around], self.parts, -1)

    def _settings(self) -> dict[str, Any]:
        channels = self.channels // self.parts
        own = {"channels": channels, "stride": self.stride, "affine": self.affine}
        return {**own, "dtype": self.dtype}

    def _all(self, x: jax.Array, weights: jax.Array, train: bool, skips: Skips) -> Any:
        total: Any = 0
        for name, weight in zip(self.operations, weights, strict=False):
            output = candidate(x, train, operation=name, **self._settings())
            identity = name == "skip_connect" and self.stride == 1
            if train and identity and "dropout" in skips:
                output = self._dropped(output, skips["dropout"])
            total = total + weight * output
        return total

    def _one(self, x: jax.Array, weights: jax.Array, train: bool, skips: Skips) -> Any:
        del skips
        weights = weights[: len(self.operations)]
        nothing = () if "none" in self.operations else ("none",)
        names = (*self.operations, *nothing)
        layers = tuple((name, Alone(operation=name, **self._settings())) for name in names)
        index = jnp.where(jnp.any(weights != 0), jnp.argmax(weights), names.index("none"))
        weights = jnp.append(weights, jnp.zeros(len(nothing), weights.dtype))
        return weights[index] * Choice(layers, name="chosen")(x, index, train)

    def _dropped(self, x: jax.Array, probability: jax.Array) -> jax.Array:
        """The output with some values set to zero, scaled so that its mean over draws stays."""
        keep = 1.0 - probability
        draws = by_image(jax.random.uniform, self.make_rng("noise"), x.shape)
        return jnp.where(draws < keep, x / keep.astype(x.dtype), jnp.zeros((), x.dtype))


class Cell(nn.Module):
    """A cell: every node is the sum of its edges from all earlier states (DARTS, equation 1).

        x(j) = sum over i < j of edge(i, j)(x(i))

    It is called as cell(input0, input1, weights, train, skips), with the operations' weights
    (edges, operations), and returns the nodes side by side.

    Attributes:
      channels: the channels C of every state; the output has nodes * C.
      nodes: how many.
      reduction: whether the edges from the two inputs have stride 2.
      reduce_input0: whether input 0 has twice the side of input 1.
      parts: K of `partial`; 1: edges work on all channels.
      auxiliary_skip: whether every edge has one more skip connection.
      affine: whether batch norms have scale and bias; `PlainCell` only.
    """

    channels: int
    nodes: int
    reduction: bool
    reduce_input0: bool
    parts: int = 1
    auxiliary_skip: bool = False
    affine: bool = False
    dtype: Any = jnp.float32

    def edges_kept(self, images: int, count: int, train: bool, skips: Skips | None) -> Any:
        """Factors (N, E) of the edges' outputs, for a subclass's `__call__`, which draws first.

        0 for what `drop_path` drops, else what keeps the mean over draws; None: nothing is dropped.
        """
        if not train or not skips or "drop_path" not in skips:
            return None
        keep = 1.0 - skips["drop_path"]
        draws = by_image(jax.random.uniform, self.make_rng("noise"), (images, count))
        return jnp.where(draws < keep, 1.0 / keep, 0.0)

    def inputs(self, input0: jax.Array, input1: jax.Array, train: bool) -> list[jax.Array]:
        """The first two states, for a subclass's `__call__`: the inputs, alike in size."""
        before = FactorizedReduction if self.reduce_input0 else ReluConvBN
        settings: dict[str, Any] = {"affine": self.affine, "dtype": self.dtype}
        return [
            before(self.channels, name="preprocess0", **settings)(input0, train),
            ReluConvBN(self.channels, name="preprocess1", **settings)(input1, train),
        ]


class PlainCell(Cell, kw_only=True):
    """A cell, edge by edge.

    Attributes:
      operations: of every edge, node by node.
      one: see `MixedOperation`.
    """

    operations: tuple[tuple[str, ...], ...]
    one: bool = False

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
        rows = enumerate(zip(self.operations, weights, strict=True))
        for node in range(self.nodes):
            total: Any = 0
            for source, state in enumerate(states):
                number, (operations, row) = next(rows)
                edge = MixedOperation(
                    operations,
                    self.channels,
                    stride=2 if self.reduction and source < 2 else 1,
                    parts=self.parts,
                    auxiliary_skip=self.auxiliary_skip,
                    one=self.one,
                    affine=self.affine,
                    dtype=self.dtype,
                    name=f"edge_{source}_{node}",
                )
                output = edge(state, row, train, skips)
                if kept is not None:
                    output = output * kept[:, number, None, None, None].astype(output.dtype)
                total = total + output
            states.append(total)
        return jnp.concatenate(states[2:], axis=-1)
