"""Search on CIFAR-10 with regression: synthetic maps at the end of every stage.

    python main.py --config=configs/reg_cifar10.py --workdir=runs/reg_cifar10

Cost: 3,200 weight and 3,200 alpha steps of 16 images, 1,024 of each half.
No published number to compare with; see docs/tasks.md for the source.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.cifar10("reg")
