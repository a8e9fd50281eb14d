"""What the recipes of sample-based experiments in configs/ share."""

import ml_collections

from unnas_jax.config import recipes
from unnas_jax.config import schema as config_lib


def cifar10(space: str) -> ml_collections.ConfigDict:
    """A sample-based experiment on CIFAR-10 with the paper's recipe: three seeds each."""
    config = config_lib.sample()
    _space(config, space)
    several = {"train": {"batch_size": 32}, "weights": {"learning_rate": 0.025}}
    config.recipes = {
        "classification": {"input": {"pad": 4}},
        "rotation": {**several, "input": {"pad": 4}},
        "jigsaw": {**several, "input": {"gray": 0.3}},
    }
    return config


def imagenet(space: str) -> ml_collections.ConfigDict:
    """A sample-based experiment on ImageNet-1K with the paper's recipe: one seed each."""
    config = config_lib.sample()
    config.training.seeds = 1
    config.training.dataset.name = "imagenet2012"
    config.training.input = config_lib.training().input
    config.training.network.update(width="32", cells=22, stem="imagenet")
    config.training.weights.update(learning_rate=0.0125, weight_decay=5e-5)
    config.training.train.update(batch_size=32, epochs=5)
    config.training.eval.batch_size = 256
    config.training.task.update(grid=3, permutations=1000)
    _space(config, space)
    if space == "nasbench101":
        config.training.network.modules = 4
        config.training.train.update(epochs=10, precise_bn_images=0)
    config.recipes = {
        "colorization": {"input": {"lighting": 0.0}},
        "jigsaw": {"input": {"train_crop": "resize_random", "crop": 255, "gray": 0.3}},
    }
    return config


def _space(config: ml_collections.ConfigDict, space: str) -> None:
    config.training.network.update(recipes.NETWORKS.get(space, {"space": space}))


def photos(space: str) -> ml_collections.ConfigDict:
    """A sample-based experiment on the embedded photographs, for two CPU cores and an hour.

    Reduced from the paper's: small networks on small images, so that XLA compiles them in seconds,
    of any size, for some hundred steps, with one seed.
    """
    config = config_lib.sample()
    config.sample.update(count=24, nodes=2, parameters=(0, 10_000_000))
    config.training.seeds = 1
    config.training.dataset.name = "photos"
    config.training.input = config_lib.training().input
    config.training.input.update(crop=32, resize=36)
    config.training.network.update(width="16", cells=3, stem="imagenet")
    config.training.train.update(batch_size=32, epochs=2, precise_bn_images=0)
    config.training.eval.update(batch_size=154, max_images=-1)
    config.training.log_every_steps = 100
    # The tiles of jigsaws have 32 pixels, too. Colours of 24 x 24 pixels are answers enough.
    tiles = {"train_crop": "resize_random", "crop": 86, "resize": 96, "lighting": 0.0}
    few = {"batch_size": 16, "epochs": 1, "max_steps": 96}
    config.recipes = {
        # Of whole images at a higher resolution: that quickly tells which side is up.
        "rotation": {
            "input": {"train_crop": "resize_random", "crop": 48, "resize": 56},
            "train": {"batch_size": 16, "epochs": 2},
        },
        "colorization": {
            "input": {"crop": 24, "resize": 28, "lighting": 0.0},
            "train": few,
            "eval": {"max_images": 154},
        },
        "jigsaw": {
            "input": tiles,
            "weights": {"learning_rate": 0.02},
            "train": {"batch_size": 16, "epochs": 4, "max_steps": 640},
        },
    }
    _space(config, space)
    if space == "nasbench101":
        config.training.network.update(width="16", stacks=2, modules=1)
    if space == "nasbench201":
        config.training.network.update(width="8", cells=3, stem="cifar")
        config.recipes.jigsaw.input.update(crop=72, resize=80)
    return config


def digits(space: str) -> ml_collections.ConfigDict:
    """A sample-based experiment on the embedded digits, for two CPU cores and some minutes."""
    config = config_lib.sample()
    config.tasks = ("classification", "rotation", "jigsaw")
    config.sample.update(count=20)
    config.training.seeds = 1
    config.training.dataset.name = "digits"
    config.training.input.update(crop=16, resize=16)
    config.training.train.update(batch_size=32, epochs=6, precise_bn_images=0)
    config.training.eval.update(batch_size=199, every_epochs=2)
    config.training.log_every_steps = 100
    config.recipes = {
        "rotation": {"train": {"batch_size": 16, "epochs": 3}, "eval": {"every_epochs": 1}},
        # The tiles have 12 pixels.
        "jigsaw": {
            "input": {"crop": 32, "resize": 32},
            "weights": {"learning_rate": 0.05},
            "train": {"batch_size": 16, "epochs": 4},
        },
    }
    _space(config, space)
    if space == "nasbench201":
        config.training.network.update(width="8", cells=3)
    return config


def nasbench201_cifar10(config: ml_collections.ConfigDict) -> None:
    """The benchmark's recipe for training a cell (Dong and Yang, 2020, table 1)."""
    config.training.train.update(batch_size=256, epochs=200)
    config.training.weights.update(learning_rate=0.1, final_learning_rate=0.0, nesterov=True)
    config.training.weights.update(momentum=0.9, weight_decay=5e-4, warmup_epochs=0)
