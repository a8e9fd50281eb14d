"""DARTS in NAS-Bench-201, on CIFAR-10 with rotation.

    python main.py --config=configs/rot_darts_nasbench201_cifar10.py --workdir=runs/rot_darts_201

First order by default; --config.search.order=2 takes the exact second-order gradient.

Cost: 39,050 weight and 39,050 alpha steps of 32 images in four turns each.
Expected: no published number to compare with; darts_nasbench201_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.nasbench201("rot")
