"""Search on the embedded digits with masked patches: a demonstration for two CPU cores.

    launch/local.sh --config=configs/mask_digits.py

Cost: 370 weight and 333 alpha steps of 16 images of 16 pixels.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.digits("mask")
