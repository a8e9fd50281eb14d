"""FairDARTS (Chu et al., 2020) on CIFAR-10 with labels.

    python main.py --config=configs/fair_darts_cifar10.py --workdir=runs/fair_darts_cifar10

Cost: 9,750 weight and 9,750 alpha steps of 128 images.
Expected: cells whose training ends at an error of 2.54 +- 0.05%; nodes may be missing in them.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.fair(recipes.cifar10("cls"))
    registry.choose(config, "darts", mixing="sigmoid", zero_one=10.0, threshold=0.85)
    return config
