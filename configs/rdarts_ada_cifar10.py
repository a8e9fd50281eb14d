"""R-DARTS with adaptive regularisation (ADA of RobustDARTS, 2020) on CIFAR-10 with labels.

    python main.py --config=configs/rdarts_ada_cifar10.py --workdir=runs/rdarts_ada_cifar10

The largest eigenvalue of the Hessian in the alphas is measured every second epoch. When it grows
too quickly the search goes back to an earlier epoch, and on from there with ten times the decay of
the weights: 3e-4, then 3e-3 and 3e-2. The authors' gradient is that of --config.search.order=2.

Cost: 19,500 weight and 19,500 alpha steps of 64 images, as darts_cifar10, and those of 12 or more
epochs, of 50, for each of at most two returns; every second epoch some 10 to 20 products, of two to
three gradients each.
Expected: not known on this space; the paper's results are of S1 to S4.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("cls")
    registry.choose(
        config,
        "darts",
        curvature_every=2,
        adapt="weight_decay",
        adapt_factor=10.0,
        adapt_limit=0.03,
    )
    return config
