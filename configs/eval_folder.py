"""Train a genotype on your own labelled images: a folder with one directory a class.

    python main.py --config=configs/eval_folder.py:darts_v2 --config.dataset.path=~/my_images

Directories named train and val (or validation, test) on top are the splits; without them half of
the images is held out.
"""

import ml_collections

from unnas_jax.config import recipes


def get_config(genotype: str = "darts_v2") -> ml_collections.ConfigDict:
    """The recipe for a published genotype, by name, or for a genotype.json."""
    config = recipes.evaluation(genotype)
    config.dataset.name = "folder"
    config.network.auxiliary_weight = 0.0
    config.weights.update(learning_rate=0.1, warmup_epochs=2)
    config.train.update(batch_size=64, epochs=60)
    config.eval.update(batch_size=64, every_epochs=5)
    return config
