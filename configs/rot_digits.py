"""Search on the embedded digits with rotation: a demonstration for two CPU cores.

    launch/local.sh --config=configs/rot_digits.py

Cost: 370 weight and 333 alpha steps of 16 images of 16 pixels in four turns each.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.digits("rot")
