"""Train a genotype on the embedded photographs, on two CPU cores within minutes.

    launch/local.sh --config=configs/eval_photos.py:runs/rot_photos/genotype.json

The classes are the eleven photographs; training and test crops come from disjoint regions, so that
what tells them apart must carry over from one part of a scene to another. Gray images and strong
lighting keep networks from learning the regions' colours by heart. Expected: darts_v2 80.6% +- 0.5
over three seeds, a minute each.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config(genotype: str = "darts_v2") -> ml_collections.ConfigDict:
    """The recipe for a published genotype, by name, or for a genotype.json."""
    config = recipes.evaluation(genotype)
    config.dataset.name = "photos"
    config.input.update(crop=48, resize=56, gray=0.5, lighting=0.5)
    config.network.update(width="16", cells=5, auxiliary_weight=0.0)
    config.weights.update(learning_rate=0.05, warmup_epochs=1, weight_decay=2e-3)
    # Some hundred steps are few: averages steady what is evaluated.
    config.train.update(batch_size=64, epochs=12, ema=0.98, precise_bn_images=512)
    config.eval.update(batch_size=154, every_epochs=3)
    config.log_every_steps = 24
    return config
