"""P-DARTS (Chen et al., 2019) on CIFAR-10 without labels: with rotation.

    python main.py --config=configs/rot_pdarts_cifar10.py --workdir=runs/rot_pdarts_cifar10

Cost: 3 x 13,000 weight and 3 x 7,800 alpha steps of 48 images in four turns, of 5, 11 and 17 cells.
Expected: no published number to compare with; pdarts_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.progressive(recipes.cifar10("rot"))
    registry.choose(config, "p_darts", alphas_clip_norm=5.0)
    return config
