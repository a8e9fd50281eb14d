"""24 random cells of NAS-Bench-101 on the embedded photographs, for two CPU cores: a demonstration.

    export XLA_FLAGS=--xla_backend_optimization_level=0
    launch/local.sh --config=configs/sample_nasbench101_photos.py
    python -m unnas_jax.sample status runs/sample_nasbench101_photos
    python -m unnas_jax.analysis.figures runs/sample_nasbench101_photos --out=runs/figures

Networks are small (2 modules, a stem of 16 channels) and train for one or two hundred steps, so
that most of a unit is compilation, which the flag makes quick. Cost: 96 units of some 10 to 30
seconds of a core. Training and test crops are from other regions of the photographs, and so few
steps hardly teach rotation and jigsaws to carry over: expect them close to chance, classification
at 40 to 70%, colorization at 25 to 35%.
"""

import ml_collections

from configs import common


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return common.sample_photos("nasbench101")
