"""20 random cells of NAS-Bench-201 on the embedded digits, for two CPU cores: what to try second.

    launch/local.sh --config=configs/sample_nasbench201_digits.py
    unnas-jax status runs/sample_nasbench201_digits
    unnas-jax figures runs/sample_nasbench201_digits --out=runs/figures

Classification, rotation and 2x2 jigsaw of 1,200 handwritten digits, measured on 597 others.
Networks are small (three stages of one cell, a stem of 8 channels) and train for 222 to 300 steps
with one seed. Cost: 60 units of about 20 seconds of a core each, half of it compilation (estimated
from two units). What came out is in docs/results/digits.
"""

import ml_collections

from unnas_jax.config import sweep_recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return sweep_recipes.digits("nasbench201")
