"""Search on the embedded photographs with jigsaw puzzles: a demonstration for two CPU cores.

    launch/local.sh --config=configs/jig_photos.py

Cost: 960 weight and 864 alpha steps of 16 images, some minutes with the compilation.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.photos("jig")
