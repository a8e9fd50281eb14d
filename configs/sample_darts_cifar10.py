"""500 random DARTS networks on CIFAR-10, four tasks, three seeds: figure 2 of the paper, top.

    python main.py --config=configs/sample_darts_cifar10.py
    unnas-jax status runs/sample_darts_cifar10
    unnas-jax figures runs/sample_darts_cifar10 --out=runs/figures

Networks of 20 cells of width 16 with 0.685 to 0.906M parameters, 100 epochs. Cost: 2,000 units of
three trainings; a training is 39,000 steps of 128 images (classification, colorization) or 156,200
steps of 32, of which rotation makes four copies and jigsaw four tiles (2x2, 24 permutations).
Several machines: `--config.sweep.engine=ray`, or `--config.sweep.shard=i/n` on each.

The paper: Spearman's rho between pretext and supervised accuracy is typically above 0.8; lowest for
colorization.
"""

import ml_collections

from unnas_jax.config import sweep_recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return sweep_recipes.cifar10("darts")
