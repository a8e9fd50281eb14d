"""Random search with weight sharing in NAS-Bench-201, on CIFAR-10 with rotation.

    python main.py --config=configs/rsws_nasbench201_cifar10.py --workdir=runs/rsws_nasbench201

Then `unnas-jax correlate --supernet=runs/rsws_nasbench201 --scores=shared_weights,angle
--space=nasbench201 --table=TABLE.csv --workdir=DIR` says how the shared weights rank cells.

Cost: 39,050 steps of 32 images in four turns each, of one operation an edge; then 1,000 cells with
the shared weights on 5,000 images of half B, with statistics of 1,024 of half A.
Expected: no published number to compare with; the schedule is that of rot_cifar10.
"""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.methods import registry


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = recipes.cifar10("rot")
    config.network.update(space="nasbench201", width=16, cells=15)
    config.eval.max_images = 5000
    registry.choose(config, "single_path")
    return config
