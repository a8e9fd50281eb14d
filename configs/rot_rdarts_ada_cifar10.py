"""R-DARTS with adaptive regularisation (ADA of RobustDARTS, 2020) on CIFAR-10 with rotation.

    python main.py --config=configs/rot_rdarts_ada_cifar10.py --workdir=runs/rot_rdarts_ada_cifar10

The largest eigenvalue of the Hessian in the alphas is measured every second epoch. When it grows
too quickly the search goes back to an earlier epoch, and on from there with ten times the decay of
the weights: 3e-4, then 3e-3 and 3e-2. The authors' gradient is that of --config.search.order=2.

Cost: 39,050 weight and 39,050 alpha steps of 32 images in four turns each, as rot_cifar10, and
those of 12 or more epochs, of 50, for each of at most two returns; every second epoch some 10 to 20
products, of two to three gradients each.
Expected: no published number to compare with; rdarts_ada_cifar10 is the search with labels.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("rot")
    registry.choose(
        config,
        "darts",
        curvature_every=2,
        adapt="weight_decay",
        adapt_factor=10.0,
        adapt_limit=0.03,
    )
    return config
