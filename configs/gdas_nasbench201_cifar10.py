"""GDAS (Dong and Yang, 2019) in NAS-Bench-201, on CIFAR-10 with labels.

    python main.py --config=configs/gdas_nasbench201_cifar10.py --workdir=runs/gdas_nasbench201

Cost: 93,600 weight and 93,600 alpha steps of 64 images, each of one operation an edge.
Expected: 93.5 +- 0.1% on CIFAR-10 (Dong and Yang, 2020).
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.nasbench201("cls")
    config.train.epochs = 240
    registry.choose(config, "gdas")
    return config
