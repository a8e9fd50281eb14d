"""Search on Cityscapes with colorization, the paper's recipe (tables 1 and 2).

    python main.py --config=configs/col_cityscapes.py --workdir=runs/col_cityscapes

Cost: 36,800 weight and 36,800 alpha steps of 16 images, 2.9e+15 multiply-adds; about 1.6 GiB of
activations (estimates, see recipes.py). The paper gives about 2 GPU days.
Expected: a cell like the published unnas_cityscapes_col, which reaches 75.2 +- 0.15% on
ImageNet-1K and 72.5 +- 0.31% mIoU on Cityscapes (three trainings each).
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.cityscapes("col")
