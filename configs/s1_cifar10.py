"""The search space S1 of RobustDARTS (Zela et al., 2020), on CIFAR-10 with labels.

    python main.py --config=configs/s1_cifar10.py --workdir=runs/s1_cifar10

Every edge chooses between two operations of its own; all else is DARTS' search (darts_cifar10).

Cost: 19,500 weight and 19,500 alpha steps of 64 images, with fewer operations an edge than
darts_cifar10.
Expected: the cell that DARTS finds has a test error of 3.84% on CIFAR-10 in the training of Wang et
al. (2021).
"""

import ml_collections

from unnas_jax.config import recipes

_NAMES = {
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
}

# A line for each node, in it the edges from the two inputs and from the nodes before it.
_NORMAL = """
    skip/dil3 skip/dil5
    skip/dil5 skip/sep3 skip/dil3
    max/skip skip/sep3 skip/sep3 skip/dil3
    skip/sep3 max/skip skip/dil3 dil3/dil5 dil3/dil5
"""
_REDUCE = """
    max/avg max/dil3
    max/avg max/avg skip/dil5
    max/avg max/sep3 skip/dil3 skip/dil5
    max/avg max/avg skip/dil5 skip/dil5 skip/dil5
"""


def _operations(cell: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(_NAMES[name] for name in edge.split("/")) for edge in cell.split())


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.restricted({"normal": _operations(_NORMAL), "reduce": _operations(_REDUCE)})
