"""Search on your own images with label maps, by segmentation.

    python main.py --config=configs/seg_folder.py --config.dataset.path=~/my_images

The folder has images/ and labels/, a PNG of class numbers for every image (labels/A.png for
images/A.jpg), or both in train/, val/ and test/. Pixels of 255, and of
--config.dataset.ignore_label=NUMBER, do not count. A file classes.txt names the classes.
The pretext tasks search on the same folder: --config=configs/rot_folder.py passes over labels/.

The sizes suit thousands of images and one GPU; on a CPU, start with
--config.network.width=8 --config.network.cells=3
--config.input.crop=65 --config.input.resize=72.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    return recipes.folder_maps()
