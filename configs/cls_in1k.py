"""Search on ImageNet-1K with classification, the paper's recipe (tables 1 and 2).

    python main.py --config=configs/cls_in1k.py --workdir=runs/cls_in1k

Cost: 20,018 weight and 10,009 alpha steps of 64 images, 1.4e+15 multiply-adds; about 1.8 GiB of
activations (estimates, see recipes.py). The paper gives about 2 GPU days.
Expected: a cell like the published unnas_in1k_cls, which reaches 76.3 +- 0.06% on ImageNet-1K and
73.6 +- 0.31% mIoU on Cityscapes (three trainings each).
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.imagenet_1k("cls")
