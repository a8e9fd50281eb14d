"""Train a genotype on your own images with label maps: segmentation, from scratch.

    python main.py --config=configs/eval_seg_folder.py:darts_v2 --config.dataset.path=~/my_maps

The folder is as for seg_folder.py; without val/ or test/ half of the images is held out. The mIoU
is that of central crops; where images have one size, that of whole ones is
--config.eval.crop=whole --config.eval.whole_size='(HEIGHT, WIDTH)', of the largest image at least.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config(genotype: str = "darts_v2") -> ml_collections.ConfigDict:
    """The recipe for a published genotype, by name, or for a genotype.json."""
    config = recipes.evaluation(genotype)
    config.dataset.name = "folder_maps"
    config.input.update(crop=321, resize=360, train_crop="scale_random")
    config.task.update(name="segmentation", label_smoothing=0.0)
    config.task.update(aspp_channels=128, aspp_rates=(6, 12, 18))
    config.network.update(width="32", cells=12, auxiliary_weight=0.0)
    config.weights.update(learning_rate=0.025, warmup_epochs=2, weight_decay=1e-4)
    config.train.update(batch_size=16, epochs=200)
    config.eval.update(batch_size=8, every_epochs=20)
    return config
