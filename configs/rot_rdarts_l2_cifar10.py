"""R-DARTS (L2) of RobustDARTS (Zela et al., 2020) on CIFAR-10 with rotation.

    python main.py --config=configs/rot_rdarts_l2_cifar10.py --workdir=runs/rot_rdarts_l2_cifar10

DARTS with a larger decay of the weights: the paper searches with each of 3e-4 times 1, 3, 9, 27 and
81 and takes the cell that is best on held-out images. Here is the one in the middle; the others are
--config.weights.weight_decay=3e-4 and so on.

Cost: 39,050 weight and 39,050 alpha steps of 32 images in four turns each, as
rot_cifar10, for each of the five; the eigenvalue of every second
epoch takes some 10 to 20 products of two to three gradients each.
Expected: no published number to compare with; rdarts_l2_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("rot")
    config.weights.weight_decay = 9 * 3e-4
    registry.choose(config, "darts", curvature_every=2)
    return config
