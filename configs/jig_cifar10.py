"""Search on CIFAR-10 with jigsaw puzzles: DARTS' search with a pretext task for the labels.

    python main.py --config=configs/jig_cifar10.py --workdir=runs/jig_cifar10

Cost: 39,050 weight and 39,050 alpha steps of 32 images of 4 tiles each, 1.3e+15 multiply-adds;
about 0.6 GiB of activations (estimates, see recipes.py).
Expected: no number of the paper to compare with; darts_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.cifar10("jig")
