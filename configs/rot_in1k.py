"""Search on ImageNet-1K with rotation, the paper's recipe (the rows "IN1K" of tables 1 and 2).

    python main.py --config=configs/rot_in1k.py --workdir=runs/rot_in1k

Cost: 40,036 weight and 20,018 alpha steps of 32 images in four turns each, 5.4e+15 multiply-adds;
about 3.5 GiB of activations (estimates, see recipes.py). The paper gives about 2 GPU days.
Expected: a cell like the published unnas_in1k_rot, which reaches 75.8 +- 0.18% on ImageNet-1K and
73.6 +- 0.29% mIoU on Cityscapes (three trainings each).
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.imagenet_1k("rot")
