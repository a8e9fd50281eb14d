"""PC-DARTS on CIFAR-10 without labels: its recipe with rotation for the labels.

    python main.py --config=configs/rot_pcdarts_cifar10.py --workdir=runs/rot_pcdarts_cifar10

Cost: 9,750 weight and 6,825 alpha steps of 128 images in four turns each.
Expected: no published number to compare with; pcdarts_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.partial(recipes.cifar10("rot"))
    registry.choose(config, "pc_darts")
    return config
