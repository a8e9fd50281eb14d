"""GDAS (Dong and Yang, 2019), one operation an edge a step, on CIFAR-10 with labels.

    python main.py --config=configs/gdas_cifar10.py --workdir=runs/gdas_cifar10

Cost: 19,500 weight and 19,500 alpha steps of 64 images, as darts_cifar10, each pass
of one operation an edge.
Expected: no published number: the schedule is that of DARTS, not the authors'.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("cls")
    registry.choose(config, "gdas")
    return config
