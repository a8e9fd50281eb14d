"""SmoothDARTS with adversarial perturbation (Chen and Hsieh, 2020) on CIFAR-10 with labels.

    python main.py --config=configs/sdarts_adv_cifar10.py --workdir=runs/sdarts_adv_cifar10

Cost: 19,500 weight and 19,500 alpha steps of 64 images, as darts_cifar10, and nine more passes
before each weight step; the authors took three times as long as DARTS.
Expected: a cell like the published sdarts_adv, whose training ends at an error of 2.61 +- 0.02%.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("cls")
    registry.choose(config, "darts", perturbation="adversarial")
    return config
