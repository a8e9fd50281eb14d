"""Search on ImageNet-22K with rotation, the paper's recipe (the rows "IN22K" of tables 1 and 2).

    python main.py --config=configs/rot_in22k.py --workdir=runs/rot_in22k

Cost: 55,457 weight and 55,457 alpha steps of 128 images in four turns each, 4.0e+16 multiply-adds;
about 14.1 GiB of activations (estimates, see recipes.py). The paper gives about 10 GPU days.
Expected: a cell like the published unnas_in22k_rot, which reaches 75.7 +- 0.23% on ImageNet-1K and
72.9 +- 0.23% mIoU on Cityscapes (three trainings each).
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.imagenet_22k("rot")
