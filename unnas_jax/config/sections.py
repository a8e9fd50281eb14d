"""The sections of a config: every field with its type, its defaults and what it means.

`unnas_jax.config.schema` builds the configs from them; functions take the record of the part that
they need. A record of several sections is made from the whole config: `Batches.of(config)`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from unnas_jax.config.options import Section, option


@dataclasses.dataclass(frozen=True)
class DatasetSection(Section):
    """The section `dataset`: which images."""

    name: str = option(
        "The dataset: a name of the page Datasets, or `tfds:NAME[/CONFIG][:VERSION]`.",
        "imagenet2012",
    )
    path: str = option("The folder of images, for the datasets `folder` and `folder_maps`.", "")
    data_dir: str = option(
        "Where TFDS keeps datasets; empty: `$TFDS_DATA_DIR`, or TFDS's own default.", ""
    )
    subset: str = option(
        "A list of the training images to use, as `unnas-jax prepare` writes it; empty: all.",
        "",
    )
    max_pixels: int = option(
        "The most pixels of an image of `folder` and `folder_maps`; larger ones are left out.",
        100_000_000,
    )
    ignore_label: int = option(
        "The number, besides 255, of pixels that do not count in label maps of `folder_maps`.", 255
    )


@dataclasses.dataclass(frozen=True)
class Input(Section):
    """The section `input`: how images are cropped and augmented."""

    crop: int = option("The side of the square that is cut from an image, in pixels.", 224)
    resize: int = option(
        "The short side of an image before an evaluation's centre crop, in pixels.",
        256,
    )
    train_crop: str = option(
        "How training images are cropped: random_resized, resize_random, scale_random, centre, "
        "none.",
        "random_resized",
    )
    pad: int = option(
        "Pad normalised training images by so many pixels of zeros and crop them again (CIFAR).", 0
    )
    cutout: int = option(
        "The side of a square that training images lose, in pixels (DARTS: 16 for CIFAR); 0: none.",
        0,
    )
    lighting: float = option("The standard deviation of the PCA lighting; 0: none.", 0.1)
    gray: float = option("The share of training images that are turned gray, from 0 to 1.", 0.0)
    resampling: str = option("How images are resized: area, bilinear, bilinear_cut_off.", "area")
    swapped_statistics: bool = option(
        "Swap red's and blue's mean, deviation and lighting, as the PyTorch release does.", False
    )
    mirrored: bool = option(
        "Mirror images, but not label maps, after augmentation, as the PyTorch release does.", False
    )


@dataclasses.dataclass(frozen=True)
class TaskSection(Section):
    """The section `task`: what is learned."""

    name: str = option(
        "The task, a name of the page Tasks.", search="rotation", train="classification"
    )
    grid: int = option("Jigsaw: patches along a side, 2 or 3.", 3)
    permutations: int = option("Jigsaw: the number of permutations, its classes.", 1000)
    permutation_list: str = option(
        "Jigsaw: an .npy file of the permutations; empty: those of this package.", ""
    )
    aspp_channels: int = option("Segmentation: channels of each branch of the head.", 64)
    aspp_rates: tuple[int, ...] = option(
        "Segmentation: the dilations of the head's 3x3 convolutions, in pixels of its features.",
        (6,),
    )
    label_smoothing: float = option(
        "Classification: the probability that training targets give to the wrong classes together.",
        search=0.0,
        train=0.1,
        absent=0.0,
    )
    random_classes: int = option(
        "Random labels: the number of classes; 0: as many as the dataset has.", 0
    )
    mask_ratio: float = option("Masked: the share of the patches that are hidden.", 0.75)
    mask_patch: int = option("Masked: the side of a patch, in pixels.", 16)
    temperature: float = option("Contrastive: the temperature of the softmax of similarities.", 0.5)
    projection: int = option("Contrastive: the dimensions in which views are compared.", 128)
    view_area: float = option(
        "Contrastive: the least share of an image's area that a view shows.", 0.2
    )
    targets: str = option("Regression: the combination of maps to learn: darts, nasbench.", "darts")


@dataclasses.dataclass(frozen=True)
class SupernetSection(Section):
    """The network of a search."""

    space: str = option("The search space: darts, nasbench201.", "darts")
    width: int = option("Channels of the first cell before it concatenates its nodes; even.", 16)
    cells: int = option("The number of cells, at least 3.", 8)
    nodes: int = option("Nodes of a cell, besides its two inputs.", 4)
    stem: str = option("The layers before the cells: imagenet, imagenet_wide, cifar.", "imagenet")
    operations: Any = option(
        "The operations of all edges, such as `sep_conv_3x3`, or under "
        "`normal` and `reduce` such a list or one for each edge; empty: those of DARTS.",
        (),
    )
    partial_channels: int = option(
        "Operations work on one of so many channels, as in PC-DARTS; 1: on all.", 1
    )
    auxiliary_skip: bool = option(
        "Add a skip connection to every edge whose weight decays, as in DARTS-.", False
    )
    affine: bool = option(
        "Give batch norms in cells of the space darts scale and bias, as in RLNAS.", False
    )


@dataclasses.dataclass(frozen=True)
class Regularisation(Section):
    """The fields of a training's section `network` that are not properties of the network."""

    auxiliary_weight: float = option(
        "The weight of the auxiliary head's loss; 0: no such head.", train=0.4, absent=0.0
    )
    drop_path: float = option(
        "The probability with which paths are dropped at the last epoch, to which it grows.",
        train=0.0,
        absent=0.0,
    )


@dataclasses.dataclass(frozen=True)
class NetworkSection(Regularisation):
    """The network of a training."""

    space: str = option("The search space: darts, nasbench101, nasbench201.", "darts")
    genotype: str = option(
        "The cells: a published name, a search's workdir or genotype.json, or a text of cells.",
        "darts_v2",
    )
    width: str = option(
        "Channels of the first cell, an even number; or fit: the most in the paper's window of "
        "multiply-adds and parameters.",
        "fit",
    )
    cells: int = option("The number of cells, in the spaces darts and nasbench201.", 14)
    stacks: int = option("The number of stacks, in the space nasbench101.", 3)
    modules: int = option("The modules of each stack, in the space nasbench101.", 3)
    stem: str = option("The layers before the cells: imagenet, imagenet_wide, cifar.", "imagenet")


@dataclasses.dataclass(frozen=True)
class SearchSection(Section):
    """How the supernet is searched."""

    method: str = option("The search method, a name of the page Search methods.", "darts")
    order: int = option(
        "The order of the alphas' gradient: 1: at the current weights; 2: through a weight step.", 1
    )
    arch_start_epoch: float = option("The epoch from which on the alphas are trained.", 1.0)
    formulation: str = option(
        "How the supernet is computed: auto, dense, depthwise, per_edge.",
        "auto",
    )
    rematerialise: str = option(
        "What the backward pass computes again to save memory: none, or cell: all of each cell.",
        "none",
    )


@dataclasses.dataclass(frozen=True)
class Weights(Section):
    """How weights are trained."""

    learning_rate: float = option(
        "The learning rate from which the cosine falls.", search=0.05, train=0.5
    )
    momentum: float = option("The momentum of the optimizer.", 0.9)
    weight_decay: float = option(
        "The share of the weights that is added to their gradient; AdamW and the like decouple it.",
        3e-5,
    )
    clip_norm: float = option(
        "The L2 norm to which the gradient of all weights is clipped; 0: it is not.",
        search=5.0,
        train=0.0,
        absent=0.0,
    )
    final_learning_rate: float = option("The learning rate to which the cosine falls.", 0.0)
    warmup_epochs: int = option(
        "The epochs in which the learning rate rises to the cosine's; 0: no warm-up.",
        train=5,
        absent=0,
    )
    warmup_factor: float = option(
        "The share of the cosine's learning rate with which the warm-up starts.",
        train=0.1,
        absent=0.0,
    )
    nesterov: bool = option("Use Nesterov's momentum.", train=True, absent=False)
    optimizer: str = option(
        "The optimizer, a name of optax or of `unnas_jax.register_optimizer`.", "sgd"
    )
    optimizer_options: Mapping[str, Any] = option(
        "Arguments of the optimizer that are no fields of this section, by name.", {}
    )


@dataclasses.dataclass(frozen=True)
class Alphas(Section):
    """How alphas are drawn and trained."""

    learning_rate: float = option("The learning rate, constant.", search=1.5e-4)
    b1: float = option("The decay of Adam's first moment, in [0, 1).", search=0.5)
    b2: float = option("The decay of Adam's second moment, in [0, 1).", search=0.999)
    weight_decay: float = option(
        "The share of the alphas that is added to their gradient; AdamW and the like decouple it.",
        search=1e-3,
    )
    init_scale: float = option(
        "The standard deviation of the first alphas.", search=1e-3, absent=1e-3
    )
    optimizer: str = option(
        "The optimizer, a name of optax or of `unnas_jax.register_optimizer`.", "adam"
    )
    optimizer_options: Mapping[str, Any] = option(
        "Arguments of the optimizer that are no fields of this section, by name.", {}
    )


@dataclasses.dataclass(frozen=True)
class Train(Section):
    """The length and the size of a training."""

    batch_size: int = option(
        "Images of a step on all devices, before the task makes examples of them.",
        search=32,
        train=1024,
    )
    epochs: int = option("Passes over the training images.", search=2, train=250)
    max_steps: int = option("Stop after so many steps; -1: after all epochs.", -1)
    max_images: int = option(
        "Training images to use, drawn once, in a search of each half; -1: all.", -1
    )
    seeds_together: int = option(
        "Seeds that one program trains at once; -1: one on CPUs, otherwise all.",
        train=-1,
        absent=-1,
    )
    initial: str = option(
        "The workdir of a training with whose weights, but heads, this one begins; empty: none.",
        train="",
        absent="",
    )
    ema: float = option(
        "The decay in a step of the moving average of weights and statistics; 0: no average.",
        train=0.0,
        absent=0.0,
    )
    precise_bn_images: int = option(
        "Training images whose batch-norm statistics an evaluation uses; 0: running statistics.",
        train=0,
        absent=0,
    )


@dataclasses.dataclass(frozen=True)
class Eval(Section):
    """How a network is evaluated."""

    batch_size: int = option(
        "Images that are evaluated at once on all devices.", search=256, train=1000
    )
    max_images: int = option("Held-out images to evaluate on, drawn once; -1: all.", -1)
    every_epochs: int = option("Epochs from one evaluation to the next.", train=1, absent=1)
    crop: str = option(
        "What is evaluated: centre (a crop), or whole (images with padding, for segmentation).",
        train="centre",
        absent="centre",
    )
    whole_size: tuple[int, int] = option(
        "The height and width to which whole images are padded, in pixels.",
        train=(1025, 2049),
        absent=(1025, 2049),
    )


@dataclasses.dataclass(frozen=True)
class TaskConfig(Section):
    """The part of a config from which tasks are made."""

    task: TaskSection
    input: Input
    precision: str
    seed: int
    network: Regularisation
    train: Train
    eval: Eval


@dataclasses.dataclass(frozen=True)
class Batches(Section):
    """The part from which the streams of batches are made."""

    input: Input
    train: Train
    eval: Eval
    workers: int


@dataclasses.dataclass(frozen=True)
class Training(Section):
    """The part from which the steps of a training are built."""

    weights: Weights
    train: Train
    input: Input
    network: Regularisation


@dataclasses.dataclass(frozen=True)
class SupernetConfig(Section):
    """The part from which supernets are built."""

    network: SupernetSection
    search: SearchSection
    precision: str


@dataclasses.dataclass(frozen=True)
class MethodConfig(SupernetConfig):
    """The part from which search methods are made; `method` has their own options by name."""

    method: Mapping[str, Any]
    input: Input
    weights: Weights
    alphas: Alphas
    train: Train
    seed: int


@dataclasses.dataclass(frozen=True)
class Pace(Section):
    """The length of a run, and how often it logs and saves."""

    train: Train
    log_every_steps: int
    checkpoint_every_steps: int
