"""Search on Cityscapes with jigsaw puzzles, the paper's recipe (tables 1 and 2).

    python main.py --config=configs/jig_cityscapes.py --workdir=runs/jig_cityscapes

Cost: 18,400 weight and 18,400 alpha steps of 32 images of 9 tiles each, 2.0e+15 multiply-adds;
about 2.2 GiB of activations (estimates, see recipes.py). The paper gives about 2 GPU days.
Expected: a cell like the published unnas_cityscapes_jig, which reaches 75.5 +- 0.06% on
ImageNet-1K and 74.1 +- 0.39% mIoU on Cityscapes (three trainings each).
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.cityscapes("jig")
