"""Search on CIFAR-10 with masked images: three of four patches of 4x4 pixels are hidden.

    python main.py --config=configs/mask_cifar10.py --workdir=runs/mask_cifar10

Cost: 19,500 weight and 19,500 alpha steps of 64 images.
No published number to compare with; see docs/tasks.md for the source.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.cifar10("mask")
