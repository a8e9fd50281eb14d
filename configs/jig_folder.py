"""Search on your own images by jigsaws, without labels: any folder of images.

    python main.py --config=configs/jig_folder.py --config.dataset.path=~/my_images

The sizes suit thousands of images and one GPU; on a CPU, start with
--config.network.width=8 --config.network.cells=3
--config.task.grid=2 --config.task.permutations=24 --config.input.crop=88 --config.input.resize=96.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.folder("jig")
