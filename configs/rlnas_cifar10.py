"""RLNAS (Zhang et al., 2021) on CIFAR-10: random labels, and the cell of the largest angle.

    python main.py --config=configs/rlnas_cifar10.py --workdir=runs/rlnas_cifar10

Two differences: it learns from half A, not from all training images; and the best of 1,000 random
cells is taken, where the authors let as many evolve.

Cost: 97,500 steps of 64 images, of two operations a node; the angles take no images.
Expected: no published number to compare with; the authors' cell is `rlnas_c10`.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("random")
    config.network.affine = True
    config.train.epochs = 250
    registry.choose(config, "single_path", criterion="angle")
    return config
