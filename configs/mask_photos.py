"""Search on the embedded photographs with masked patches: a demonstration for two CPU cores.

    launch/local.sh --config=configs/mask_photos.py

Cost: 576 weight and 480 alpha steps of 16 images.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.photos("mask")
