"""Search on ImageNet-1K with jigsaw puzzles, the paper's recipe (tables 1 and 2).

    python main.py --config=configs/jig_in1k.py --workdir=runs/jig_in1k

Cost: 40,036 weight and 20,018 alpha steps of 32 images of 9 tiles each, 1.0e+15 multiply-adds;
about 0.6 GiB of activations (estimates, see recipes.py). The paper gives about 2 GPU days.
Expected: a cell like the published unnas_in1k_jig, which reaches 75.9 +- 0.15% on ImageNet-1K and
73.1 +- 0.17% mIoU on Cityscapes (three trainings each).
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.imagenet_1k("jig")
