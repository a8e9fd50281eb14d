"""Search on ImageNet-22K with classification, the paper's recipe (tables 1 and 2).

    python main.py --config=configs/cls_in22k.py --workdir=runs/cls_in22k

Cost: 27,728 weight and 27,728 alpha steps of 256 images, 1.0e+16 multiply-adds; about 7.0 GiB of
activations (estimates, see recipes.py). The paper gives about 10 GPU days.
Expected: a cell like the published unnas_in22k_cls, which reaches 75.9 +- 0.09% on ImageNet-1K and
72.4 +- 0.29% mIoU on Cityscapes (three trainings each).
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.imagenet_22k("cls")
