"""DARTS- (Chu et al., 2021) on CIFAR-10 without labels: with rotation.

    python main.py --config=configs/rot_dartsminus_cifar10.py --workdir=runs/rot_dartsminus_cifar10

Cost: 39,050 weight and 39,050 alpha steps of 32 images in four turns each, as rot_cifar10, with one
more skip an edge.
Expected: no published number to compare with; dartsminus_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("rot")
    config.network.auxiliary_skip = True
    registry.choose(config, "darts")
    return config
