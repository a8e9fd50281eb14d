"""All networks of NAS-Bench-101 in few programs: cells of seven vertices, padded.

Cells are data here, not structure: their edges, the operation and the channels of a vertex. XLA
compiles once for all cells with equally many vertices before the output (at most five programs) and
skips the operations that a cell does not have. Every vertex has room for the channels of the
widest; kernels are zero where a cell has no channels, so that these are and stay zero, in training,
too: the network computes the same as `network.Network`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.layers.pooling import max_pool
from unnas_jax.spaces import stages
from unnas_jax.spaces.choice import Choice, Pool, Zeros
from unnas_jax.spaces.nasbench101.network import KERNELS, ConvBNRelu, stem_of, vertex_channels
from unnas_jax.spaces.nasbench101.spec import MAX_VERTICES, OPERATIONS, Spec

COLLECTION = "cell"
"""The collection of variables that holds the cell; see `cell`."""

INNER = MAX_VERTICES - 2
"""The vertices between input and output, which are 1 to 5; a cell's own come first."""

_ABSENT = len(OPERATIONS)


def vertex(channels: int, dtype: Any, name: str) -> Choice:
    """The operation of a vertex, by its number in `OPERATIONS`, or zeros."""
    layers = [
        (operation, ConvBNRelu(channels, side, dtype=dtype)) for operation, side in KERNELS.items()
    ]
    return Choice((*layers, ("maxpool3x3", Pool(max_pool)), ("absent", Zeros())), name=name)


def projection(channels: int, dtype: Any, name: str) -> Choice:
    """The input of a module for a vertex, or zeros if no edge leads there."""
    layer = ConvBNRelu(channels, 1, dtype=dtype)
    return Choice((("absent", Zeros(channels)), ("present", layer)), name=name)


class Module(nn.Module):
    """`network.Module` for a cell that is data.

    Attributes:
      channels: of the output.
      room: for the channels of every vertex.
      stack: which of the cell's rows of channels holds.
    """

    channels: int
    room: int
    stack: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, cell: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """(N, H, W, C) to (N, H, W, channels)."""
        channels = cell["channels"][self.stack]
        states: list[jax.Array] = []
        output = projection(self.channels, self.dtype, f"input_op_{INNER + 1}")(
            x, cell["from_input"][INNER], train
        )
        place = jnp.zeros((), jnp.int32)
        for number in range(INNER):
            state = projection(self.room, self.dtype, f"input_op_{number + 1}")(
                x, cell["from_input"][number], train
            )
            kept = (jnp.arange(self.room) < channels[number]).astype(self.dtype)[None, None, None]
            for source in range(number):
                state += states[source] * (kept * cell["edges"][source, number].astype(self.dtype))
            state = vertex(self.room, self.dtype, f"vertex_op_{number + 1}")(
                state, cell["operations"][number], train
            )
            states.append(state)
            output += _placed(state * cell["feeds"][number].astype(self.dtype), place, output)
            place += channels[number] * cell["feeds"][number]
        return output


def _placed(state: jax.Array, place: jax.Array, like: jax.Array) -> jax.Array:
    """The channels of a state at a place among those of another array, zeros around them."""
    room, channels = state.shape[-1], like.shape[-1]
    # The last channels of a state may have no room there; they are zeros.
    wide = jnp.zeros((*state.shape[:-1], channels + room), state.dtype)
    return jax.lax.dynamic_update_slice_in_dim(wide, state, place, 3)[..., :channels]


class Network(nn.Module):
    """`network.Network` with the cell as a variable.

    Attributes:
      feeding: how many vertices feed the output of the cells that it is for, at least 1; see
        `feeding`.
      stem: as `network.Network`'s.
    """

    feeding: int
    head: nn.Module
    width: int = 128
    stacks: int = 3
    modules: int = 3
    stem: str = "cifar"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> tuple[jax.Array, None]:
        """As `network.Network`'s."""
        shapes = {
            "edges": ((INNER, INNER), jnp.int32),
            "from_input": ((INNER + 1,), jnp.bool_),
            "operations": ((INNER,), jnp.int32),
            "feeds": ((INNER,), jnp.int32),
            "channels": ((self.stacks, INNER), jnp.int32),
        }
        cell = {
            name: self.variable(COLLECTION, name, jnp.zeros, *shape).value
            for name, shape in shapes.items()
        }
        x = inputs.astype(self.dtype)
        for layer in stem_of(self):
            x = layer(x, train)
        ends = []
        for stack in range(self.stacks):
            channels = self.width * 2**stack
            if stack:
                x = max_pool(x, 2, 2, 0)
            for module in range(self.modules):
                name = f"stack_{stack}_module_{module}"
                room = -(-channels // self.feeding)
                x = Module(channels, room, stack, self.dtype, name=name)(x, cell, train)
            ends.append(stages.end(self, x))
        return self.head(stages.for_head(self.head, ends, x), train), None


def feeding(spec: Spec) -> int:
    """How many vertices feed a cell's output, which the program depends on; 1 if none does."""
    matrix = spec.pruned().matrix
    return max(1, sum(row[-1] for row in matrix[1:-1]))


def cell(spec: Spec, width: int = 128, stacks: int = 3) -> dict[str, np.ndarray]:
    """The variables in `COLLECTION` with which a network computes the same as a cell's own."""
    spec = spec.pruned()
    matrix = np.array(spec.matrix)
    inner = len(matrix) - 2
    result = {
        "edges": np.zeros((INNER, INNER), np.int32),
        "from_input": np.zeros(INNER + 1, bool),
        "operations": np.full(INNER, _ABSENT, np.int32),
        "feeds": np.zeros(INNER, np.int32),
        "channels": np.zeros((stacks, INNER), np.int32),
    }
    result["edges"][:inner, :inner] = matrix[1:-1, 1:-1]
    result["from_input"][:inner] = matrix[0, 1:-1]
    result["from_input"][INNER] = matrix[0, -1]
    result["operations"][:inner] = [OPERATIONS.index(name) for name in spec.operations[1:-1]]
    result["feeds"][:inner] = matrix[1:-1, -1]
    for stack in range(stacks):
        # The channels of a module's input matter to its projections alone.
        result["channels"][stack, :inner] = vertex_channels(spec.matrix, 0, width * 2**stack)[1:-1]
    return result


def place(spec: Spec, name: Sequence[str]) -> tuple[str, ...]:
    """Where a padded network keeps the variable that a cell's own `Network` has at a place.

    There it fills the first channels.
    """
    spec = spec.pruned()
    last = len(spec.matrix) - 1
    found: list[str] = []
    for part in name:
        kind, _, vertex = part.rpartition("_")
        if kind == "vertex_op":
            found += [part, spec.operations[int(vertex)]]
        elif kind == "input_op":
            number = INNER + 1 if int(vertex) == last else int(vertex)
            found += [f"input_op_{number}", "present"]
        else:
            found.append(part)
    return tuple(found)
