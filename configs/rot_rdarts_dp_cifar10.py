"""R-DARTS (DP) of RobustDARTS (Zela et al., 2020) on CIFAR-10 with rotation.

    python main.py --config=configs/rot_rdarts_dp_cifar10.py --workdir=runs/rot_rdarts_dp_cifar10

DARTS with stronger augmentation: edges of the supernet are dropped with a probability that grows
by epoch, and images lose a square of 16 pixels with a probability that grows to 1. The paper
searches with each of 0, 0.2, 0.4 and 0.6 at the end and takes the cell that is best on held-out
images: --config.method.drop_path=0.4 and so on.

Cost: 39,050 weight and 39,050 alpha steps of 32 images in four turns each, as
rot_cifar10, for each of the four; the eigenvalue of every second
epoch takes some 10 to 20 products of two to three gradients each.
Expected: no published number to compare with; rdarts_dp_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("rot")
    config.input.cutout = 16
    registry.choose(config, "darts", curvature_every=2, drop_path=0.2, cutout_rises=True)
    return config
