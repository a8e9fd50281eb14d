"""Counts the parameters of many genotypes' networks, and traces only a few of them."""

import dataclasses
import functools
from collections.abc import Iterator

from unnas_jax.layers.counting import answer, count
from unnas_jax.spaces.darts.genotype import Genotype, Pairs
from unnas_jax.spaces.darts.network import Network
from unnas_jax.spaces.darts.operations import BUILDERS

Size = tuple[int, int, int]


def parameters_of(network: Network, size: Size) -> int:
    """The parameters of a network without its auxiliary head.

    Each operation adds the same number, whatever the others are. So that number is traced once, and
    a genotype's count is a sum, which is fast enough for thousands of draws.

    Args:
      network: whose genotype is one of many; all else is equal in them.
      size: height, width and channels of its inputs.
    """
    empty, genotype = _emptied(network.genotype), network.genotype
    bare = network.clone(genotype=empty)
    return _traced(bare, size) + sum(
        _added(bare, size, kind, operation, source < 2)
        for kind, pairs in _halves(genotype)
        for operation, source in pairs
    )


def _halves(genotype: Genotype) -> Iterator[tuple[str, Pairs]]:
    return ((kind, getattr(genotype, kind)) for kind in ("normal", "reduce"))


def _emptied(genotype: Genotype) -> Genotype:
    """The genotype with the operation `none` on the first inputs throughout."""
    normal, reduce = ((("none", 0),) * len(pairs) for _, pairs in _halves(genotype))
    return dataclasses.replace(genotype, normal=normal, reduce=reduce)


@functools.lru_cache(maxsize=256)
def _traced(network: Network, size: Size) -> int:
    return count(network, answer(network, size), train=False).parameters


@functools.lru_cache(maxsize=1024)
def _added(network: Network, size: Size, kind: str, operation: str, of_an_input: bool) -> int:
    """The parameters that an operation on an input, or on a node, adds to an empty network."""
    pairs = list(getattr(network.genotype, kind))
    # The last pair may take any state but its own node.
    pairs[-1] = (operation, 0 if of_an_input else len(pairs) // 2)
    halves = {**dict(_halves(network.genotype)), kind: tuple(pairs)}
    genotype = dataclasses.replace(
        network.genotype, normal=halves["normal"], reduce=halves["reduce"]
    )
    return _traced(network.clone(genotype=genotype), size) - _traced(network, size)


# The networks name their operations.
BUILDERS.when_replaced(_traced.cache_clear)
BUILDERS.when_replaced(_added.cache_clear)
