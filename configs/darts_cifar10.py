"""DARTS' own search on CIFAR-10 with labels (Liu et al., 2019), the row "NAS-DARTS [19]".

    python main.py --config=configs/darts_cifar10.py --workdir=runs/darts_cifar10

First order by default; --config.search.order=2 takes the exact second-order gradient.

Cost: 19,500 weight and 19,500 alpha steps of 64 images, 2.2e+15 multiply-adds; about 2.3 GiB of
activations (estimates, see recipes.py).
Expected: a cell like the published darts_v1 (darts_v2 with order 2); darts_v2 reaches 74.9 +-
0.08% on ImageNet-1K in the paper's training, 72.6 +- 0.55% mIoU on Cityscapes.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.cifar10("cls")
