"""DARTS+ (Liang et al., 2019) on CIFAR-10 with labels: DARTS that stops early.

    python main.py --config=configs/dartsplus_cifar10.py --workdir=runs/dartsplus_cifar10

The search ends when the normal cell has two skip connections, which by chance may be in the first
epochs, while no operation is preferred (--config.search.arch_start_epoch lets the weights learn
first). The authors' other rule, that the ranking of the operations which learn has not changed for
ten epochs, is --config.method.stop=stable_ranking.

Cost: at most 19,500 weight and 19,500 alpha steps of 64 images, as darts_cifar10.
Expected: the authors' cells end at an error of 2.50 +- 0.11% when trained.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("cls")
    registry.choose(config, "darts", stop="two_skips")
    return config
