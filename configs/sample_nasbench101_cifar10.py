"""500 random cells of NAS-Bench-101 on CIFAR-10, four tasks, three seeds: figure 2, bottom.

    python main.py --config=configs/sample_nasbench101_cifar10.py
    unnas-jax status runs/sample_nasbench101_cifar10
    unnas-jax figures runs/sample_nasbench101_cifar10 --out=runs/figures

Cells are uniform over the 423,624 unique ones; networks have a stem of 128 channels and 3 stacks of
3 modules, 100 epochs. Cost: 2,000 units of three trainings, with the steps of sample_darts_cifar10;
the networks are larger. Several machines: `--config.sweep.engine=ray`, or
`--config.sweep.shard=i/n` on each.

The paper: rho is typically above 0.8, generally higher than in the DARTS space.
"""

import ml_collections

from unnas_jax.config import sweep_recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return sweep_recipes.cifar10("nasbench101")
