"""P-DARTS (Chen et al., 2019) on CIFAR-10 with labels.

    python main.py --config=configs/pdarts_cifar10.py --workdir=runs/pdarts_cifar10

Cost: 3 x 6,500 weight and 3 x 3,900 alpha steps of 96 images, of 5, 11 and 17 cells; the authors
take 7 hours on a P100.
Expected: a cell like the published pdarts, whose training ends at an error of 2.50%.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.progressive(recipes.cifar10("cls"))
    registry.choose(config, "p_darts", alphas_clip_norm=5.0)
    return config
