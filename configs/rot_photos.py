"""Search on the embedded photographs with rotation: a demonstration for two CPU cores.

    launch/local.sh --config=configs/rot_photos.py

Cost: 576 weight and 480 alpha steps of 16 images, some minutes with the compilation.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.photos("rot")
