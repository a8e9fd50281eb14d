"""Train a genotype on the embedded photographs, on two CPU cores within minutes.

    launch/local.sh --config=configs/eval_photos.py:runs/rot_photos/genotype.json

The classes are the eleven photographs; training and test crops come from disjoint regions.
"""

import ml_collections

from configs import common


def get_config(genotype: str = "darts_v2") -> ml_collections.ConfigDict:
    """The recipe for a published genotype, by name, or for a genotype.json."""
    config = common.evaluation(genotype)
    config.dataset.name = "photos"
    config.input.update(crop=48, resize=56)
    config.task.label_smoothing = 0.0
    config.network.update(width="16", cells=5, auxiliary_weight=0.0)
    config.weights.update(learning_rate=0.1, warmup_epochs=1, weight_decay=3e-4)
    config.train.update(batch_size=64, epochs=6)
    config.eval.update(batch_size=154, every_epochs=2)
    config.log_every_steps = 20
    return config
