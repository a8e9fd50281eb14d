"""GDAS (Dong and Yang, 2019), one operation an edge a step, on CIFAR-10 with rotation.

    python main.py --config=configs/rot_gdas_cifar10.py --workdir=runs/rot_gdas_cifar10

Cost: 39,050 weight and 39,050 alpha steps of 32 images in four turns each, as rot_cifar10, each
pass of one operation an edge.
Expected: no published number to compare with; gdas_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("rot")
    registry.choose(config, "gdas")
    return config
