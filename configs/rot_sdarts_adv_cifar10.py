"""SmoothDARTS, adversarial perturbation (Chen and Hsieh, 2020), on CIFAR-10 with rotation.

    python main.py --config=configs/rot_sdarts_adv_cifar10.py --workdir=runs/rot_sdarts_adv_cifar10

Cost: 39,050 weight and 39,050 alpha steps of 32 images in four turns each, as rot_cifar10, and nine
more passes before each weight step.
Expected: no published number to compare with; sdarts_adv_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("rot")
    registry.choose(config, "darts", perturbation="adversarial")
    return config
