"""24 random cells of two nodes on the embedded photographs, for two CPU cores: a demonstration.

    launch/local.sh --config=configs/sample_darts_photos.py
    unnas-jax status runs/sample_darts_photos
    unnas-jax figures runs/sample_darts_photos --out=runs/figures

Networks are small (3 cells of width 16) and train for 100 to 640 steps with one
seed. Cost: 96 units; those of classification and colorization take 10 to 15 seconds of a core
each, most of it compilation; those of rotation and jigsaw
took 104 and 91 in the median, beside much other work on the machine.

Measured: accuracy, chance, and Spearman's rho with classification (95% interval):

    classification   46 to 64%   9%
    colorization     18 to 33%   22% (the most frequent colour)    -0.08 [-0.48, 0.38]
    rotation         24 to 32%   25%                                0.11 [-0.33, 0.49]
    jigsaw           3.6 to 8.4% 4.2%                              -0.03 [-0.44, 0.37]

That is no evidence: one seed of so short a training is mostly noise, and what rotation and jigsaw
learn of eleven photographs hardly carries over to their other regions.
"""

import ml_collections

from unnas_jax.config import sweep_recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return sweep_recipes.photos("darts")
