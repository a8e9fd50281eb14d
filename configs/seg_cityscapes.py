"""Search on Cityscapes with segmentation, the paper's recipe (tables 1 and 2).

    python main.py --config=configs/seg_cityscapes.py --workdir=runs/seg_cityscapes

Cost: 18,400 weight and 18,400 alpha steps of 32 images, 3.1e+15 multiply-adds; about 3.6 GiB of
activations (estimates, see recipes.py). The paper gives about 2 GPU days.
Expected: a cell like the published unnas_cityscapes_seg, which reaches 75.8 +- 0.13% on
ImageNet-1K and 72.4 +- 0.15% mIoU on Cityscapes (three trainings each).
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.cityscapes("seg")
