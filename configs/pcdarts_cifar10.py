"""PC-DARTS on CIFAR-10 with labels (Xu et al., 2020), its published recipe.

    python main.py --config=configs/pcdarts_cifar10.py --workdir=runs/pcdarts_cifar10

Cost: 4,850 weight and 3,395 alpha steps of 256 images, each on a quarter of DARTS' channels.
Expected: a cell like the published pcdarts_c10, whose training ends at an error of 2.57 +- 0.07%.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.partial(recipes.cifar10("cls"))
    registry.choose(config, "pc_darts")
    return config
