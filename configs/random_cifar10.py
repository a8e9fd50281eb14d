"""Search on CIFAR-10 with random labels: the class that was drawn for each image.

    python main.py --config=configs/random_cifar10.py --workdir=runs/random_cifar10

Cost: 19,500 weight and 19,500 alpha steps of 64 images. Accuracy is that on half A, by heart.
No published number to compare with; see docs/tasks.md for the source.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.cifar10("random")
