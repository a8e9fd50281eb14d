"""Search on the embedded photographs with contrastive learning: a demonstration for two CPU cores.

    launch/local.sh --config=configs/con_photos.py

Cost: 576 weight and 480 alpha steps of 16 images in two views each.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.photos("con")
