"""Placeholder until measured: a sweep on the embedded photographs."""

import ml_collections

from configs import common


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return common.sample_photos("darts")
