"""24 random cells of NAS-Bench-201 on the embedded photographs, for two CPU cores: a demonstration.

    launch/local.sh --config=configs/sample_nasbench201_photos.py
    unnas-jax status runs/sample_nasbench201_photos
    unnas-jax figures runs/sample_nasbench201_photos --out=runs/figures

Networks are small (three stages of one cell, a stem of 8 channels) and train as those of
`sample_nasbench101_photos` do: 96 units, one seed, no evidence.
"""

import ml_collections

from unnas_jax.config import sweep_recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return sweep_recipes.photos("nasbench201")
