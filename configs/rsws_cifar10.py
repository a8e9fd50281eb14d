"""Random search with weight sharing (Li and Talwalkar, 2019) on CIFAR-10 with rotation.

    python main.py --config=configs/rsws_cifar10.py --workdir=runs/rsws_cifar10

Cost: 39,050 steps of 32 images in four turns each, of two operations a node; then 1,000 cells with
the shared weights on 5,000 images of half B, with statistics of 1,024 of half A.
Expected: no published number to compare with; the schedule is that of rot_cifar10.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("rot")
    config.eval.max_images = 5000
    registry.choose(config, "single_path")
    return config
