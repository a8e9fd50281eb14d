"""Random DARTS cells: as the paper samples them (section 5.2), and as a search may end."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from unnas_jax.core.errors import UserError
from unnas_jax.layers.heads import ImageHead
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts.candidates import OPERATIONS, Candidates
from unnas_jax.spaces.darts.genotype import Genotype, Pairs
from unnas_jax.spaces.darts.network import Network
from unnas_jax.spaces.darts.parameters import parameters_of

_LOG = logging.getLogger("unnas_jax")

# The network whose size must lie in the window: that of the paper's CIFAR-10 experiments (section
# 5.2), whatever is trained, so that a seed gives the same architectures for every dataset.
_WIDTH, _CELLS, _CLASSES, _SIDE = 16, 20, 10, 32
_MAX_DRAWS_EACH = 10_000  # Draws for one architecture before a window counts as empty.


def _random_cell(rng: np.random.Generator, nodes: int) -> Pairs:
    return tuple(
        (OPERATIONS[rng.integers(len(OPERATIONS))], int(rng.integers(node + 2)))
        for node in range(nodes)
        for _ in range(2)
    )


def draw_darts(seed: int, number: int, nodes: int = 4) -> Genotype:
    """Draw `number` of a seed from the DARTS space, as the paper samples it.

    Each of a cell's nodes takes two (operation, earlier state) pairs. Operations are uniform over
    all eight, `none` included, and inputs over the earlier states, with replacement.
    """
    rng = np.random.default_rng((seed, number))
    concat = tuple(range(2, nodes + 2))
    return Genotype(_random_cell(rng, nodes), concat, _random_cell(rng, nodes), concat)


def _found_cell(rng: np.random.Generator, nodes: int, operations: Sequence[Any]) -> Pairs:
    pairs = []
    for node in range(nodes):
        first = candidates.num_edges(node)  # Before those of this node.
        for source in np.sort(rng.choice(node + 2, 2, replace=False)):
            names = [name for name in operations[first + source] if name != "none"]
            pairs.append((names[rng.integers(len(names))], int(source)))
    return tuple(pairs)


def draw_found(
    rng: np.random.Generator, nodes: int = 4, operations: Candidates | None = None
) -> Genotype:
    """Draws uniformly from the cells that a search can end in.

    Every node takes two distinct earlier states, each through one of the edge's operations that are
    not `none`: of DARTS, or as given.
    """
    names = candidates.everywhere(nodes) if operations is None else operations
    normal, reduce = (_found_cell(rng, nodes, names[kind]) for kind in candidates.KINDS)
    concat = tuple(range(2, nodes + 2))
    return Genotype(normal, concat, reduce, concat)


def parameters(genotype: Genotype) -> int:
    """The parameters of a cell's network at the paper's CIFAR-10 size: 20 cells of width 16."""
    network = Network(genotype, _WIDTH, _CELLS, stem="cifar", head=ImageHead(_CLASSES))
    return parameters_of(network, (_SIDE, _SIDE, 3))


def sample_darts(
    count: int, seed: int, *, nodes: int = 4, window: Sequence[int] = (685_000, 906_000)
) -> list[Genotype]:
    """The first draws of a seed whose networks have a size in a window, all different.

    The paper's 500 have 0.685 to 0.906M parameters, which about every fifth draw has. The first
    of a larger sample with the same seed are the smaller sample.

    Args:
      count: how many.
      seed: of the draws.
      nodes: of a cell.
      window: the least and the most `parameters`.

    Raises:
      UserError: hardly any cell has such a size.
    """
    found: dict[Genotype, None] = {}
    number = 0
    while len(found) < count:
        if number >= _MAX_DRAWS_EACH * (len(found) + 1):
            raise UserError(
                f"config.sample.parameters={tuple(window)}: of {number:,} random cells with "
                f"{nodes} nodes only {len(found)} have such a size and are different; widen it"
            )
        genotype = draw_darts(seed, number, nodes)
        number += 1
        if window[0] <= parameters(genotype) <= window[1]:
            found[genotype] = None
    _LOG.info("Drew %d DARTS cells: %d of %d draws have the size.", count, len(found), number)
    return list(found)
