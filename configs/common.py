"""What the recipes in this directory share; not a recipe itself."""

import ml_collections

from unnas_jax import config as config_lib

TASKS = {
    "rot": "rotation",
    "col": "colorization",
    "jig": "jigsaw",
    "cls": "classification",
}


def photos(task: str) -> ml_collections.ConfigDict:
    """A search on the embedded photographs that ends within minutes on two CPU cores.

    Reduced from the paper's recipes: 3 cells of width 8 and crops of 48 pixels, so that XLA
    compiles for seconds, and rates for a run of some hundred steps instead of 40,000.
    """
    config = config_lib.search()
    config.dataset.name = "photos"
    config.task.name = TASKS[task]
    config.input.update(crop=48, resize=56, train_crop="random_resized")
    config.network.update(width=8, cells=3)
    config.search.arch_start_epoch = 1.0
    config.weights.update(learning_rate=0.1, weight_decay=3e-4)
    config.alphas.learning_rate = 3e-3
    config.train.update(batch_size=16, epochs=6)
    config.eval.update(batch_size=128, max_images=512)
    config.log_every_steps = 20
    config.checkpoint_every_steps = 200
    if task == "jig":
        jigsaw_input(config)
        config.task.update(grid=2, permutations=24)
    return config


def imagenet_1k(task: str) -> ml_collections.ConfigDict:
    """A search on ImageNet-1K with the paper's recipe (appendix, search phase)."""
    config = config_lib.search()
    config.dataset.name = "imagenet2012"
    config.task.name = TASKS[task]
    if task in ("cls", "col"):
        config.weights.learning_rate = 0.1
        config.alphas.learning_rate = 3e-4
        config.train.batch_size = 64
    else:
        config.weights.learning_rate = 0.05
        config.alphas.learning_rate = 1.5e-4
        config.train.batch_size = 32
    if task == "jig":
        jigsaw_input(config)
        config.input.crop = 255
    return config


def jigsaw_input(config: ml_collections.ConfigDict) -> None:
    """The input of jigsaw puzzles: whole images, 30% of them gray, no lighting."""
    config.input.update(train_crop="resize_random", gray=0.3, lighting=0.0)
