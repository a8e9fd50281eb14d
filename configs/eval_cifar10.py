"""Train a genotype on CIFAR-10 from scratch, with DARTS' recipe (Liu et al., 2019).

    python main.py --config=configs/eval_cifar10.py:darts_v2

600 epochs, 20 cells of width 36, drop path up to 0.2, no cutout (DARTS uses it).
"""

import ml_collections

from unnas_jax.config import recipes


def get_config(genotype: str = "darts_v2") -> ml_collections.ConfigDict:
    """The recipe for a published genotype, by name, or for a genotype.json."""
    config = recipes.evaluation(genotype)
    config.dataset.name = "cifar10"
    config.input.update(crop=32, resize=32, train_crop="none", pad=4, lighting=0.0)
    config.task.label_smoothing = 0.0
    config.network.update(width="36", cells=20, stem="cifar", drop_path=0.2)
    config.weights.update(learning_rate=0.025, warmup_epochs=0, weight_decay=3e-4, clip_norm=5.0)
    config.weights.nesterov = False
    config.train.update(batch_size=96, epochs=600)
    config.eval.batch_size = 500
    return config
