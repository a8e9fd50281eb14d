"""Search on CIFAR-10 with rotation: DARTS' search with a pretext task for the labels.

    python main.py --config=configs/rot_cifar10.py --workdir=runs/rot_cifar10

Cost: 39,050 weight and 39,050 alpha steps of 32 images in four turns each, 9.0e+15 multiply-adds;
about 4.6 GiB of activations (estimates, see recipes.py).
Expected: no number of the paper to compare with; darts_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.cifar10("rot")
