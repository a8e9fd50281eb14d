"""Search on the embedded photographs with rotation: a demonstration for two CPU cores.

    launch/local.sh --config=configs/rot_photos.py
"""

import ml_collections

from configs import common


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return common.photos("rot")
