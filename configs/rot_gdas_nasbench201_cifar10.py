"""GDAS (Dong and Yang, 2019) in NAS-Bench-201, on CIFAR-10 with rotation.

    python main.py --config=configs/rot_gdas_nasbench201_cifar10.py --workdir=runs/rot_gdas_201

Cost: 187,440 weight and 187,440 alpha steps of 32 images in four turns each, of one operation an
edge.
Expected: no published number to compare with; gdas_nasbench201_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.nasbench201("rot")
    config.train.epochs = 240
    registry.choose(config, "gdas")
    return config
