"""500 random cells of NAS-Bench-101 on ImageNet-1K, four tasks: figure 3, bottom.

    python main.py --config=configs/sample_nasbench101_in1k.py
    unnas-jax status runs/sample_nasbench101_in1k
    unnas-jax figures runs/sample_nasbench101_in1k --out=runs/figures

The architectures of sample_nasbench101_cifar10 (the same seed) with a stem of 128 channels and 3
stacks of 4 modules, 10 epochs, evaluated with running batch norm statistics. Cost: 2,000 trainings
of 400,360 steps of 32 images; rotation makes four copies of each, jigsaw nine tiles (3x3, 1000
permutations, crops of 255). With both workdirs, `unnas_jax.analysis.figures` draws figures 4 and 5,
too.

The paper: rho is typically above 0.8, generally higher than in the DARTS space.
"""

import ml_collections

from unnas_jax.config import sweep_recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return sweep_recipes.imagenet("nasbench101")
