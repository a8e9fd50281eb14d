"""24 random cells of NAS-Bench-101 on the embedded photographs, for two CPU cores: a demonstration.

    export XLA_FLAGS=--xla_backend_optimization_level=0
    launch/local.sh --config=configs/sample_nasbench101_photos.py
    python -m unnas_jax.sample status runs/sample_nasbench101_photos
    python -m unnas_jax.analysis.figures runs/sample_nasbench101_photos --out=runs/figures

Networks are small (2 modules, a stem of 16 channels) and train for one or two hundred steps with
one seed, so that almost half of a unit is compilation, with the flag. Cost: 96 units; those of
classification and colorization take 10 to 15 seconds of a core each.

Measured with --config.tasks="('classification','colorization')": classification 41 to 65%,
colorization 11 to 31% (the most frequent colour has 22%), and Spearman's rho between them 0.32
(-0.19 to 0.67). That is no evidence: one seed of so short a training is mostly noise. Rotation and
jigsaw were not run to the end; jigsaw stays at chance.
"""

import ml_collections

from configs import common


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return common.sample_photos("nasbench101")
