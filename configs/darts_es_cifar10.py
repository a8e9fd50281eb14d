"""DARTS with early stopping (RobustDARTS, Zela et al., 2020) on CIFAR-10 with labels.

    python main.py --config=configs/darts_es_cifar10.py --workdir=runs/darts_es_cifar10

The largest eigenvalue of the Hessian in the alphas is measured every second epoch. When it grows
too quickly the search ends, with the cells of an earlier epoch. The paper's gradient is that of
--config.search.order=2.

Cost: at most 19,500 weight and 19,500 alpha steps of 64 images, as
darts_cifar10, and every second epoch some 10 to 20 products, of two to three gradients each.
Expected: not known on this space; the paper's results are of S1 to S4.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("cls")
    registry.choose(config, "darts", curvature_every=2, stop="eigenvalue")
    return config
