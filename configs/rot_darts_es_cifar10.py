"""DARTS with early stopping (RobustDARTS, Zela et al., 2020) on CIFAR-10 with rotation.

    python main.py --config=configs/rot_darts_es_cifar10.py --workdir=runs/rot_darts_es_cifar10

The largest eigenvalue of the Hessian in the alphas is measured every second epoch. When it grows
too quickly the search ends, with the cells of an earlier epoch. The paper's gradient is that of
--config.search.order=2.

Cost: at most 39,050 weight and 39,050 alpha steps of 32 images in four turns each, as
rot_cifar10, and every second epoch some 10 to 20 products, of two to three gradients each.
Expected: no published number to compare with; darts_es_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("rot")
    registry.choose(config, "darts", curvature_every=2, stop="eigenvalue")
    return config
