"""DARTS' own search on CIFAR-10 with labels (Liu et al., 2019), the row "NAS-DARTS [19]".

    python main.py --config=configs/darts_cifar10.py --workdir=runs/darts_cifar10

First order by default; --config.search.order=2 takes the exact second-order gradient.
"""

import ml_collections

from unnas_jax import config as config_lib


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = config_lib.search()
    config.dataset.name = "tfds:cifar10"
    config.task.name = "classification"
    config.input.update(crop=32, resize=32, train_crop="none", pad=4, lighting=0.0)
    config.network.stem = "cifar"
    config.search.arch_start_epoch = 0.0
    config.weights.update(learning_rate=0.025, final_learning_rate=0.001, weight_decay=3e-4)
    config.alphas.learning_rate = 3e-4
    config.train.update(batch_size=64, epochs=50)
    return config
