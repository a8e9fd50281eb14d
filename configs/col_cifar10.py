"""Search on CIFAR-10 with colorization: DARTS' search with a pretext task for the labels.

    python main.py --config=configs/col_cifar10.py --workdir=runs/col_cifar10

Cost: 19,500 weight and 19,500 alpha steps of 64 images, 2.3e+15 multiply-adds; about 2.3 GiB of
activations (estimates, see recipes.py).
Expected: no number of the paper to compare with; darts_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.cifar10("col")
