"""FairDARTS (Chu et al., 2020) on CIFAR-10 without labels: with rotation.

    python main.py --config=configs/rot_fair_darts_cifar10.py --workdir=runs/rot_fair_darts_cifar10

Cost: 19,500 weight and 19,500 alpha steps of 64 images in four turns each.
Expected: no published number to compare with; fair_darts_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.fair(recipes.cifar10("rot"))
    registry.choose(config, "darts", mixing="sigmoid", zero_one=10.0, threshold=0.85)
    return config
