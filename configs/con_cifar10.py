"""Search on CIFAR-10 with contrastive learning: which two views are of the same image?

    python main.py --config=configs/con_cifar10.py --workdir=runs/con_cifar10

Cost: 39,050 weight and 39,050 alpha steps of 32 images in two views each.
No published number to compare with; see docs/tasks.md for the source.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.cifar10("con")
