"""Search on ImageNet-22K with jigsaw puzzles, the paper's recipe (tables 1 and 2).

    python main.py --config=configs/jig_in22k.py --workdir=runs/jig_in22k

Cost: 55,457 weight and 55,457 alpha steps of 128 images of 9 tiles each, 7.5e+15 multiply-adds;
about 2.6 GiB of activations (estimates, see recipes.py). The paper gives about 10 GPU days.
Expected: a cell like the published unnas_in22k_jig, which reaches 75.9 +- 0.31% on ImageNet-1K and
73.1 +- 0.59% mIoU on Cityscapes (three trainings each).
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.imagenet_22k("jig")
