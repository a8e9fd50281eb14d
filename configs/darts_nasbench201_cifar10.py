"""DARTS in NAS-Bench-201, on CIFAR-10 with labels.

    python main.py --config=configs/darts_nasbench201_cifar10.py --workdir=runs/darts_nasbench201

First order by default; --config.search.order=2 takes the exact second-order gradient.

Cost: 19,500 weight and 19,500 alpha steps of 64 images.
Expected: a cell of skip connections alone, 54.3% on CIFAR-10 (Dong and Yang, 2020, both orders).
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.nasbench201("cls")
