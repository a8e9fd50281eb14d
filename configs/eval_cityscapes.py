"""Train a genotype on Cityscapes from scratch: the paper's table 2.

    python main.py --config=configs/eval_cityscapes.py:unnas_cityscapes_jig
    python main.py --config=configs/eval_cityscapes.py:runs/rot_cityscapes/genotype.json

2700 epochs at batch 64, three seeds; mIoU of the 500 whole validation images. The published rows
lie between 72.2% and 74.1%.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config(genotype: str = "darts_v2") -> ml_collections.ConfigDict:
    """The recipe for a published genotype, by name, or for a genotype.json."""
    config = recipes.evaluation(genotype, widths=recipes.CITYSCAPES_WIDTHS)
    config.dataset.name = "cityscapes"
    config.input.update(crop=769, resize=1024, train_crop="scale_random")
    config.task.update(name="segmentation", label_smoothing=0.0)
    config.task.update(aspp_channels=256, aspp_rates=(6, 12, 18))
    config.network.update(cells=12, auxiliary_weight=0.0)
    config.weights.update(learning_rate=0.1, warmup_epochs=0, weight_decay=1e-4)
    config.train.update(batch_size=64, epochs=2700)
    config.eval.update(batch_size=8, every_epochs=100, crop="whole", whole_size=(1025, 2049))
    return config
