"""24 random cells of NAS-Bench-101 on the embedded photographs, for two CPU cores: a demonstration.

    launch/local.sh --config=configs/sample_nasbench101_photos.py
    unnas-jax status runs/sample_nasbench101_photos
    unnas-jax figures runs/sample_nasbench101_photos --out=runs/figures

Networks are small (2 modules, a stem of 16 channels) and train for 100 to 640 steps with one
seed. Cost: 96 units; those of classification and colorization take 10 to 15 seconds of a core
each, most of it compilation; those of rotation and jigsaw
took 39 in the median, beside other work on the machine.

Measured: accuracy, chance, and Spearman's rho with classification (95% interval):

    classification   41 to 65%   9%
    colorization     11 to 31%   22% (the most frequent colour)     0.32 [-0.19, 0.67]
    rotation         24 to 30%   25%                                0.08 [-0.29, 0.41]
    jigsaw           3.6 to 6.7% 4.2%                              -0.16 [-0.50, 0.22]

That is no evidence: one seed of so short a training is mostly noise, and what rotation and jigsaw
learn of eleven photographs hardly carries over to their other regions.
"""

import ml_collections

from unnas_jax.config import sweep_recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return sweep_recipes.photos("nasbench101")
