"""24 random cells of NAS-Bench-201 on the embedded photographs, for two CPU cores: a demonstration.

    export XLA_FLAGS=--xla_backend_optimization_level=0
    launch/local.sh --config=configs/sample_nasbench201_photos.py
    python -m unnas_jax.sweep.sample status runs/sample_nasbench201_photos
    python -m unnas_jax.analysis.figures runs/sample_nasbench201_photos --out=runs/figures

Networks are small (three stages of one cell, a stem of 8 channels) and train as those of
`sample_nasbench101_photos` do: 96 units, one seed, no evidence.
"""

import ml_collections

from configs import common


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return common.sample_photos("nasbench201")
