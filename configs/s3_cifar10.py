"""The search space S3 of RobustDARTS (Zela et al., 2020), on CIFAR-10 with labels.

    python main.py --config=configs/s3_cifar10.py --workdir=runs/s3_cifar10

Every edge chooses between none, the skip connection and the separable 3x3 convolution; all else is
DARTS' search (darts_cifar10).

Cost: 19,500 weight and 19,500 alpha steps of 64 images, with fewer operations an edge than
darts_cifar10.
Expected: the cell that DARTS finds has a test error of 3.34% on CIFAR-10 in the training of Wang et
al. (2021).
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.restricted(("none", "skip_connect", "sep_conv_3x3"))
