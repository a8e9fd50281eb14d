"""500 random DARTS networks on ImageNet-1K, four tasks: figure 3 of the paper, top.

    python main.py --config=configs/sample_darts_in1k.py
    unnas-jax status runs/sample_darts_in1k
    unnas-jax figures runs/sample_darts_in1k --out=runs/figures

The architectures of sample_darts_cifar10 (the window of sizes is that of their CIFAR-10 networks,
the seed is the same) with 22 cells of width 32, 5 epochs. Cost: 2,000 trainings of 200,180 steps of
32 images; rotation makes four copies of each, jigsaw nine tiles (3x3, 1000 permutations, crops of
255). With both workdirs, `unnas_jax.analysis.figures` draws figures 4 and 5, too.

The paper: rho is typically above 0.8, highest for colorization.
"""

import ml_collections

from unnas_jax.config import sweep_recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return sweep_recipes.imagenet("darts")
