"""A config here as YAML of the PyTorch release, with notes on differences."""

from collections.abc import Mapping
from typing import Any

import yaml

from unnas_jax.config import schema as config_lib
from unnas_jax.convert import config as release
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts import published
from unnas_jax.spaces.nasbench101 import space as nasbench101

# Fields that have no counterpart in the release and change no result.
_OF_THE_RUN = (
    "checkpoint_every_steps",
    "dataset.",
    "eval.max_images",
    "log_every_steps",
    "mode",
    "precision",
    "seeds",
    "task.permutation_list",
    "train.initial",
    "train.max_steps",
    "train.seeds_together",
    "workers",
)


def to_release(config: Mapping[str, Any], classes: int) -> tuple[dict[str, Any], list[str]]:
    """The tree of the release's keys for a config here: the inverse of `config.convert`.

    Args:
      config: a valid one, as a dict.
      classes: the outputs of the network's last layer.

    Returns:
      The tree, and notes on what the release would do otherwise.
    """
    c = config_lib.record(config)
    task, weights, cifar, name = c.task, c.weights, c.network.stem == "cifar", c.dataset.name
    known = {ours: theirs for theirs, ours in release.DATASETS.items()}
    dataset = known.get(name, "cifar10" if cifar else "imagenet")
    notes = []
    if name not in known:
        notes.append(f"the release has no dataset {name!r}: TRAIN.DATASET is {dataset!r}")
    short = {ours: theirs for theirs, ours in release.TASKS.items()}[task.name]
    tree: dict[str, Any] = {
        "MODEL": {"TYPE": "nas_search", "NUM_CLASSES": classes},
        "NAS": {"WIDTH": int(c.network.width)},
        "OPTIM": {
            "BASE_LR": weights.learning_rate,
            "LR_POLICY": "cos",
            "MAX_EPOCH": c.train.epochs,
            "MOMENTUM": weights.momentum,
            "NESTEROV": weights.nesterov,
            "WEIGHT_DECAY": weights.weight_decay,
        },
        "TRAIN": {
            "DATASET": dataset,
            "SPLIT": "train",
            "BATCH_SIZE": c.train.batch_size,
            "IM_SIZE": c.input.crop,
        },
        "TEST": {
            "BATCH_SIZE": c.eval.batch_size,
            "IM_SIZE": c.input.resize,
        },
        "TASK": short,
        "RNG_SEED": c.seed,
    }
    if short == "col":
        tree["MODEL"]["INPUT_CHANNELS"] = 1
    if short == "jig":
        if not task.permutation_list:
            notes.append("the jigsaw's classes are other permutations there")
        tree["JIGSAW_GRID"] = task.grid
        tree["TRAIN"]["GRAY_PERCENTAGE"] = c.input.gray
    if short == "seg":
        rates = list(task.aspp_rates)
        tree["MODEL"].update(ASPP_CHANNELS=task.aspp_channels, ASPP_RATES=rates)
    if isinstance(c, config_lib.SearchConfig):
        tree["NAS"]["DEPTH"] = c.network.cells
        tree["TRAIN"]["PORTION"] = 0.5
        tree["OPTIM"].update(
            ARCH_BASE_LR=c.alphas.learning_rate,
            ARCH_WEIGHT_DECAY=c.alphas.weight_decay,
            ARCH_EPOCH=c.search.arch_start_epoch,
        )
    else:
        _training_keys(c, tree)
        tree["TEST"].update(DATASET=dataset, SPLIT="test" if cifar else "val")
    try:
        back, _ = release.convert(tree, "the release")
    except UserError as error:
        return tree, [*notes, str(error)]
    lines = config_lib.difference(config, back.to_dict())
    without_effect: tuple[str, ...] = _OF_THE_RUN
    if short != "jig":
        without_effect += ("task.grid", "task.permutations")
    if short != "seg":
        without_effect += ("task.aspp",)
    notes += [f"config.{line}" for line in lines if not line.startswith(without_effect)]
    return tree, notes


def _training_keys(c: config_lib.TrainConfig, tree: dict[str, Any]) -> None:
    """Adds what only trainings of one architecture have."""
    network, weights, smoothing = c.network, c.weights, c.task.label_smoothing
    images = c.train.precise_bn_images
    tree["OPTIM"].update(WARMUP_EPOCHS=weights.warmup_epochs, WARMUP_FACTOR=weights.warmup_factor)
    tree["TRAIN"]["EVAL_PERIOD"] = c.eval.every_epochs
    if images:
        tree["BN"] = {"USE_PRECISE_STATS": True, "NUM_SAMPLES_PRECISE": images}
    if smoothing:
        tree["MODEL"]["LOSS_FUN"] = "label_smoothed_cross_entropy"
        tree["MODEL"]["LABEL_SMOOTHING_EPS"] = smoothing
    if network.space == "nasbench101":
        spec = nasbench101.resolve(network.genotype)
        long = [f"{o}-bn-relu" if o.startswith("conv") else o for o in spec.operations]
        tree["MODEL"]["TYPE"] = "nas_bench"
        tree["NAS"].update(
            MATRIX=[list(row) for row in spec.matrix],
            OPS=long,
            NUM_STACKS=network.stacks,
            NUM_MODULES_PER_STACK=network.modules,
        )
        return
    name = network.genotype
    cells = published.resolve(name).as_dict()
    tree["MODEL"]["TYPE"] = "nas"
    tree["NAS"]["GENOTYPE"] = release.genotype_names().get(name, "custom")
    if tree["NAS"]["GENOTYPE"] == "custom":
        tree["NAS"]["CUSTOM_GENOTYPE"] = [cells[half] for half in release.CUSTOM]
    tree["NAS"].update(
        DEPTH=network.cells,
        AUX=network.auxiliary_weight > 0,
        DROP_PROB=network.drop_path,
    )
    if network.auxiliary_weight:
        tree["NAS"]["AUX_WEIGHT"] = network.auxiliary_weight


def as_yaml(tree: Mapping[str, Any]) -> str:
    """The text of a file of the release."""
    text: str = yaml.safe_dump(dict(tree), sort_keys=False)
    return text
