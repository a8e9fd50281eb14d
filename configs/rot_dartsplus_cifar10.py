"""DARTS+ (Liang et al., 2019) on CIFAR-10 with rotation: DARTS that stops early.

    python main.py --config=configs/rot_dartsplus_cifar10.py --workdir=runs/rot_dartsplus_cifar10

The search ends when the normal cell has two skip connections, which by chance may be in the first
epochs, while no operation is preferred (--config.search.arch_start_epoch lets the weights learn
first). The authors' other rule, that the ranking of the operations which learn has not changed for
ten epochs, is --config.method.stop=stable_ranking.

Cost: at most 39,050 weight and 39,050 alpha steps of 32 images in four turns each, as rot_cifar10.
Expected: no published number to compare with; dartsplus_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("rot")
    registry.choose(config, "darts", stop="two_skips")
    return config
