"""What the recipes of searches and evaluations in configs/ share.

Their docstrings give what a search costs as it follows from the recipe:

- steps: half of the images over the batch size, times the epochs; an alpha step comes before each
  weight step once the alphas move;
- multiply-adds: a pass takes three times the forward pass' (`unnas-jax complexity`);
- memory: an estimate of what a pass keeps for its backward pass, in bfloat16: 18 maps an edge and
  5 a state of every cell. XLA's workspace comes on top; the parameters are small beside it.
"""

from typing import Any

import ml_collections

from unnas_jax.config import schema as config_lib

TASKS = {
    "rot": "rotation",
    "col": "colorization",
    "jig": "jigsaw",
    "cls": "classification",
    "seg": "segmentation",
    "random": "random_labels",
    "mask": "masked",
    "con": "contrastive",
    "reg": "regression",
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
    if task == "col":
        config.input.lighting = 0.0
    if task == "jig":
        # Tiles of 33 pixels, of nearly whole images; smaller ones show too little.
        config.input.update(crop=88, resize=96, train_crop="resize_random", lighting=0.0)
        config.task.update(grid=2, permutations=24)
        config.weights.learning_rate = 0.01
        config.train.epochs = 10
    return config


def digits(task: str) -> ml_collections.ConfigDict:
    """A search on the embedded digits, for two CPU cores: `photos` at a lower resolution."""
    config = photos(task)
    config.dataset.name = "digits"
    config.network.stem = "cifar"
    config.input.update(crop=16, resize=16, train_crop="none", lighting=0.0)
    config.train.update(batch_size=16, epochs=10)
    if task == "mask":
        config.task.mask_patch = 4
    return config


def imagenet_1k(task: str) -> ml_collections.ConfigDict:
    """A search on ImageNet-1K with the paper's recipe (appendix, search phase)."""
    config = config_lib.search()
    config.dataset.name = "imagenet2012"
    config.task.name = TASKS[task]
    _rates(config, batch_size=64 if task in ("cls", "col") else 32, full=64)
    if task == "col":
        config.input.lighting = 0.0
    if task == "jig":
        config.input.update(crop=255, train_crop="resize_random", gray=0.3)
    return config


def folder(task: str) -> ml_collections.ConfigDict:
    """A search on a user's own images: that of ImageNet-1K, with more epochs for fewer images."""
    config = imagenet_1k(task)
    config.dataset.name = "folder"
    config.train.epochs = 20
    config.search.arch_start_epoch = 4.0
    config.input.update(crop=128, resize=146)
    if task == "jig":  # Tiles of 54 pixels; smaller ones show too little.
        config.input.update(crop=192, resize=219)
    return config


def imagenet_22k(task: str) -> ml_collections.ConfigDict:
    """A search on ImageNet-22K: four times the batch and the rates, one epoch, no warm-up."""
    config = imagenet_1k(task)
    config.dataset.name = "imagenet22k"
    config.search.arch_start_epoch = 0.0
    _rates(config, batch_size=256 if task in ("cls", "col") else 128, full=64)
    config.train.epochs = 1
    # A report on all seven million images of half B would take half as long as the search.
    config.eval.max_images = 50_000
    return config


def cityscapes(task: str) -> ml_collections.ConfigDict:
    """A search on Cityscapes with the paper's recipe (appendix, search phase).

    The crop is that of the released settings, 321 pixels (8k + 1); the paper's text says 312.
    """
    config = config_lib.search()
    config.dataset.name = "cityscapes"
    config.task.name = TASKS[task]
    config.network.cells = 12
    config.search.arch_start_epoch = 0.0
    config.weights.weight_decay = 3e-4
    _rates(config, batch_size=32 if task in ("seg", "jig") else 16, full=32)
    if task == "col":
        config.input.lighting = 0.0
    if task == "jig":
        config.input.gray = 0.3
    config.input.update(crop=321, resize=512, train_crop="scale_random")
    config.train.epochs = 400
    config.eval.batch_size = 64
    return config


def folder_maps() -> ml_collections.ConfigDict:
    """A search with segmentation on a user's own label maps: that of Cityscapes, smaller."""
    config = cityscapes("seg")
    config.dataset.name = "folder_maps"
    _rates(config, batch_size=16, full=32)
    config.input.update(crop=225, resize=256)
    config.train.epochs = 100
    config.eval.batch_size = 16
    return config


def cifar10(task: str) -> ml_collections.ConfigDict:
    """DARTS' search on CIFAR-10 (Liu et al., 2019), first order, with any task.

    Tasks that make several examples of an image take half the batch and half the rates, as in the
    paper's searches on ImageNet. Images are padded and cropped for classification and rotation
    only: padding would mark a jigsaw's outer tiles, and has no colour to learn.
    """
    config = config_lib.search()
    config.dataset.name = "cifar10"
    config.task.name = TASKS[task]
    config.network.stem = "cifar"
    config.search.arch_start_epoch = 0.0
    config.weights.update(learning_rate=0.025, final_learning_rate=0.001, weight_decay=3e-4)
    config.alphas.learning_rate = 3e-4
    config.train.update(batch_size=64, epochs=50)
    if task in ("rot", "jig", "con"):
        config.weights.update(learning_rate=0.0125, final_learning_rate=0.0005)
        config.alphas.learning_rate = 1.5e-4
        config.train.batch_size = 32
    config.input.update(crop=32, resize=32, train_crop="none", lighting=0.0)
    if task in ("cls", "rot"):
        config.input.pad = 4
    if task == "jig":
        config.input.gray = 0.3
        config.task.update(grid=2, permutations=24)
    if task == "random":
        config.input.pad = 4
    if task == "mask":
        config.task.mask_patch = 4
    if task == "con":
        config.input.gray = 0.2
    if task == "reg":
        # The setting of the regression objective: few images, again and again.
        config.train.update(batch_size=16, max_images=1024)
    return config


def partial(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """What PC-DARTS (Xu et al., 2020) changes in a search on CIFAR-10, besides the method.

    A quarter of the channels, four times the batch and the weights' rate, alphas from epoch 15 on.
    Tasks that make several examples of an image take half the batch and half the rates.
    """
    scale = config.train.batch_size / 64
    config.search.arch_start_epoch = 15.0
    config.network.partial_channels = 4
    config.train.batch_size *= 4
    config.weights.update(learning_rate=0.1 * scale, final_learning_rate=0.0)
    config.alphas.learning_rate = 6e-4 * scale
    return config


def partial_imagenet(task: str) -> ml_collections.ConfigDict:
    """PC-DARTS' search on ImageNet-1K, besides the method: half of the channels, a batch of 1024.

    The paper learns weights from 10% of every class and alphas from 2.5%. Here both learn from
    halves of one subset, which `dataset.subset` names.
    """
    config = imagenet_1k(task)
    scale = 0.5 if task in ("rot", "jig") else 1.0
    config.network.update(partial_channels=2, stem="imagenet_wide")
    config.search.arch_start_epoch = 35.0
    config.train.update(batch_size=int(1024 * scale), epochs=50)
    config.weights.update(learning_rate=0.5 * scale, weight_decay=3e-4)
    config.alphas.learning_rate = 6e-3 * scale
    return config


def progressive(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """What P-DARTS (Chen et al., 2019) changes in a search on CIFAR-10, besides the method.

    Three stages of 25 epochs; the alphas move from epoch 10 of each on. Tasks that make several
    examples of an image take half the batch and half the rates.
    """
    scale = config.train.batch_size / 64
    config.network.cells = 5
    config.search.arch_start_epoch = 10.0
    config.train.update(batch_size=int(96 * scale), epochs=75)
    config.weights.update(learning_rate=0.025 * scale, final_learning_rate=0.0)
    config.alphas.learning_rate = 6e-4 * scale
    return config


def fair(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """What FairDARTS (Chu et al., 2020) changes in a search on CIFAR-10, besides options.

    No `none`, twice the batch, and other rates. Its alphas begin at 0; here they begin near it.
    """
    scale = config.train.batch_size / 64
    config.network.operations = (
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    )
    config.train.batch_size = int(128 * scale)
    config.weights.update(learning_rate=0.005 * scale, final_learning_rate=0.001 * scale)
    config.alphas.update(learning_rate=3e-3 * scale, b1=0.9)
    return config


def nasbench201(task: str) -> ml_collections.ConfigDict:
    """A search with gradients in NAS-Bench-201 on CIFAR-10 (Dong and Yang, 2020, table 4).

    The schedule of `cifar10` with the benchmark's 15 cells of width 16 and its weight decay. The
    authors' SGD has Nesterov's momentum, which searches do not have here.
    """
    config = cifar10(task)
    config.network.update(space="nasbench201", width=16, cells=15)
    config.weights.weight_decay = 5e-4
    return config


def restricted(operations: Any) -> ml_collections.ConfigDict:
    """DARTS' search on CIFAR-10 with labels and other operations on the edges.

    Args:
      operations: a value of `network.operations`.
    """
    config = cifar10("cls")
    with config.ignore_type():  # By kind of cell it is a dict, not a tuple.
        config.network.operations = operations
    return config


# The published widths; they keep the paper's windows (its count is 1 to 3% above the true one).
IMAGENET_WIDTHS = {
    "darts_v2": 48, "pdarts": 48, "pcdarts_c10": 48, "pcdarts_in1k": 48,
    "unnas_in1k_cls": 44, "unnas_in1k_rot": 42, "unnas_in1k_col": 46, "unnas_in1k_jig": 42,
    "unnas_in22k_cls": 46, "unnas_in22k_rot": 42, "unnas_in22k_col": 42, "unnas_in22k_jig": 42,
    "unnas_cityscapes_seg": 44, "unnas_cityscapes_rot": 42, "unnas_cityscapes_col": 54,
    "unnas_cityscapes_jig": 44,
}  # fmt: skip
CITYSCAPES_WIDTHS = {
    "darts_v2": 82,
    "unnas_in1k_cls": 78, "unnas_in1k_rot": 78, "unnas_in1k_col": 80, "unnas_in1k_jig": 78,
    "unnas_in22k_cls": 80, "unnas_in22k_rot": 78, "unnas_in22k_col": 78, "unnas_in22k_jig": 78,
    "unnas_cityscapes_seg": 80, "unnas_cityscapes_rot": 78, "unnas_cityscapes_col": 86,
    "unnas_cityscapes_jig": 80,
}  # fmt: skip


_PLAIN = {"auxiliary_weight": 0.0, "drop_path": 0.0}
NETWORKS = {
    "nasbench101": {"space": "nasbench101", "width": "128", "stacks": 3, "modules": 3, **_PLAIN},
    "nasbench201": {"space": "nasbench201", "width": "16", "cells": 15, "stem": "cifar", **_PLAIN},
}
"""The benchmarks' networks: the fields of the section `network` that are not those of DARTS."""


def evaluation(
    genotype: str, widths: dict[str, int] = IMAGENET_WIDTHS
) -> ml_collections.ConfigDict:
    """The evaluation of a genotype with the paper's ImageNet recipe, at its published width.

    A genotype without a published width is fitted to the paper's window.
    """
    config = config_lib.training()
    config.network.genotype = genotype
    config.network.width = str(widths.get(genotype, "fit"))
    return config


def _rates(config: ml_collections.ConfigDict, batch_size: int, full: int) -> None:
    """The batch, and rates that grow with it: 0.1 (weights) and 3e-4 (alphas) at `full` images."""
    config.train.batch_size = batch_size
    config.weights.learning_rate = 0.1 * (batch_size / full)
    config.alphas.learning_rate = 3e-4 * (batch_size / full)
