"""Search on your own images with labels: a folder with one directory a class.

    python main.py --config=configs/cls_folder.py --config.dataset.path=~/my_images

Directories named train and val (or validation, test) on top are the splits.
The sizes suit thousands of images and one GPU; on a CPU, start with
--config.network.width=8 --config.network.cells=3 --config.input.crop=48 --config.input.resize=56.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.folder("cls")
