"""Search on Cityscapes with rotation, the paper's recipe (tables 1 and 2).

    python main.py --config=configs/rot_cityscapes.py --workdir=runs/rot_cityscapes

Cost: 36,800 weight and 36,800 alpha steps of 16 images in four turns each, 1.1e+16 multiply-adds;
about 6.4 GiB of activations (estimates, see recipes.py). The paper gives about 2 GPU days.
Expected: a cell like the published unnas_cityscapes_rot, which reaches 75.9 +- 0.19% on
ImageNet-1K and 73.0 +- 0.25% mIoU on Cityscapes (three trainings each).
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.cityscapes("rot")
