"""How far the weights of a cell have turned in training: the angle of RLNAS (Zhang et al., 2021).

A cell's weights are one vector: along every path through the cell the weights of its operations,
one after the other, so that an operation counts once for each path that leads through it; then
the other layers, once. Operations without weights stand for what they compute: a skip for the
identity matrix, a pooling for its kernel, all of whose entries are 1/9. `none` ends a path.

The angle between the vector before training and the vector after it is the score: the larger, the
better did the cell learn.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Part(NamedTuple):
    """A part of the vector.

    Attributes:
      place: of the parameters in it, a path in the tree; () if it has none.
      repeats: how often it is there.
      length, squares: of entries that never change, how many and the sum of their squares.
      bias: whether the bias of a linear layer is in it, too.
    """

    place: tuple[str, ...]
    repeats: int = 1
    length: int = 0
    squares: float = 0.0
    bias: bool = True


def pooling(channels: int) -> tuple[int, float]:
    """The length and the sum of squares of a pooling's entries, 3x3 for each channel."""
    return 9 * channels, channels / 9


def identity(channels: int) -> tuple[int, float]:
    """The same of a skip connection's: the identity matrix."""
    return channels * channels, float(channels)


def repeats(
    edges: Sequence[tuple[int, int]], starts: Sequence[int], ends: Sequence[int]
) -> dict[tuple[int, int], int]:
    """How many paths lead through every edge of a cell.

    Args:
      edges: (from, to), numbers of states; all lead to states of larger numbers.
      starts: the states where paths begin, the cell's inputs.
      ends: those where a path may end.
    """
    states = sorted({state for edge in edges for state in edge})
    into, out = dict.fromkeys(states, 0), dict.fromkeys(states, 0)
    for state in states:
        sources = [source for source, target in edges if target == state]
        into[state] = (state in starts) + sum(into[source] for source in sources)
    for state in reversed(states):
        targets = [target for source, target in edges if source == state]
        out[state] = (state in ends) + sum(out[target] for target in targets)
    return {(source, target): into[source] * out[target] for source, target in edges}


def _leaves(tree: Any, place: tuple[str, ...], bias: bool) -> Iterator[np.ndarray]:
    for name in place:
        tree = tree.get(name, {})
    # A linear layer's bias stands beside its kernel; a batch norm's beside its scale.
    without = () if bias or not isinstance(tree, Mapping) or "kernel" not in tree else ("bias",)
    if isinstance(tree, Mapping):
        for name in tree:
            if name not in without:
                yield from _leaves(tree[name], (), bias)
    else:
        yield np.asarray(tree, np.float64)


def length(params: Mapping[str, Any], parts: Sequence[Part]) -> int:
    """How many entries the vector has."""
    return sum(
        part.repeats * (part.length + sum(x.size for x in _leaves(params, part.place, part.bias)))
        for part in parts
    )


def angle(before: Mapping[str, Any], after: Mapping[str, Any], parts: Sequence[Part]) -> float:
    """The angle, in radians, between the vectors of two trees of parameters; 0 if one is zero."""
    product = first = second = 0.0
    for part in parts:
        own = [part.squares] * 3
        pairs = zip(
            _leaves(before, part.place, part.bias),
            _leaves(after, part.place, part.bias),
            strict=True,
        )
        for a, b in pairs:
            own = [own[0] + np.vdot(a, b), own[1] + np.vdot(a, a), own[2] + np.vdot(b, b)]
        product += part.repeats * own[0]
        first += part.repeats * own[1]
        second += part.repeats * own[2]
    if first == 0 or second == 0:
        return 0.0
    # Rounding must not make a cosine of more than 1.
    return math.acos(min(max(product / math.sqrt(first * second), -1.0), 1.0))
