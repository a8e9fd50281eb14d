"""24 random cells of two nodes on the embedded photographs, for two CPU cores: a demonstration.

    export XLA_FLAGS=--xla_backend_optimization_level=0
    launch/local.sh --config=configs/sample_darts_photos.py
    python -m unnas_jax.sample status runs/sample_darts_photos
    python -m unnas_jax.analysis.figures runs/sample_darts_photos --out=runs/figures

Networks are small (3 cells of width 16) and train for one or two hundred steps with one seed, so
that almost half of a unit is compilation, with the flag. Cost: 96 units; those of classification
and colorization take 10 to 15 seconds of a core each.

Measured with --config.tasks="('classification','colorization')": classification 46 to 64%,
colorization 18 to 33% (the most frequent colour has 22%), and Spearman's rho between them -0.08
(95% interval -0.48 to 0.38). That is no evidence: one seed of so short a training is mostly noise.
Rotation and jigsaw were not run to the end; jigsaw stays at chance.
"""

import ml_collections

from configs import common


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return common.sample_photos("darts")
