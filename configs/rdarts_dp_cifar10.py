"""R-DARTS (DP) of RobustDARTS (Zela et al., 2020) on CIFAR-10 with labels.

    python main.py --config=configs/rdarts_dp_cifar10.py --workdir=runs/rdarts_dp_cifar10

DARTS with stronger augmentation: edges of the supernet are dropped with a probability that grows
by epoch, and images lose a square of 16 pixels with a probability that grows to 1. The paper
searches with each of 0, 0.2, 0.4 and 0.6 at the end and takes the cell that is best on held-out
images: --config.method.drop_path=0.4 and so on.

Cost: 19,500 weight and 19,500 alpha steps of 64 images, as
darts_cifar10, for each of the four; the eigenvalue of every second
epoch takes some 10 to 20 products of two to three gradients each.
Expected: not known on this space; the paper's results are of S1 to S4.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("cls")
    config.input.cutout = 16
    registry.choose(config, "darts", curvature_every=2, drop_path=0.2, cutout_rises=True)
    return config
