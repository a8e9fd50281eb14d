"""The search space S4 of RobustDARTS (Zela et al., 2020), on CIFAR-10 with labels.

    python main.py --config=configs/s4_cifar10.py --workdir=runs/s4_cifar10

Every edge chooses between noise, drawn from N(0, 1) whatever the input, and the separable 3x3
convolution; all else is DARTS' search (darts_cifar10). A cell may keep the noise, which is of no
use to a network.

Cost: 19,500 weight and 19,500 alpha steps of 64 images, with fewer operations an edge than
darts_cifar10.
Expected: the cell that DARTS finds has a test error of 7.20% on CIFAR-10 in the training of Wang et
al. (2021).
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.restricted(("noise", "sep_conv_3x3"))
