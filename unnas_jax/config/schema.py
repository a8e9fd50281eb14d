"""The configs of the experiments with their defaults, and functions of whole configs."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any

import ml_collections

from unnas_jax.config import options
from unnas_jax.config.options import Config, Section, option
from unnas_jax.config.sections import (
    Alphas,
    DatasetSection,
    Eval,
    Input,
    NetworkSection,
    SearchSection,
    SupernetSection,
    TaskSection,
    Train,
    Weights,
)
from unnas_jax.core.errors import UserError

FREE = ("method", "weights.optimizer_options", "alphas.optimizer_options")
"""Sections with free keys, which the method or the optimizer checks."""

REMATERIALISE = ("none", "cell")
"""What a search's backward pass computes again instead of keeping it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common(Section):
    """The fields that the configs of searches and trainings share."""

    experiment: str = option(
        "What is run: search, train, or sample.", search="search", train="train"
    )
    seed: int = option("The seed of all draws; a training's networks have seed, seed + 1, ...", 0)
    dataset: DatasetSection
    input: Input
    task: TaskSection
    precision: str = option(
        "The networks' number format: float32, bfloat16, or auto: bfloat16 on accelerators.", "auto"
    )
    log_every_steps: int = option("Steps from one line of the log to the next.", 50)
    checkpoint_every_steps: int = option("Steps from one checkpoint to the next.", 1000)
    trackers: tuple[str, ...] = option(
        "Where metrics go besides metrics.jsonl: tensorboard, wandb, mlflow, or one's own.",
        ("tensorboard",),
    )
    workers: int = option(
        "Processes that decode images; -1: by the number of cores; 0: threads of this process.", -1
    )
    weights: Weights
    train: Train
    eval: Eval


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig(Common):
    """The config of a search."""

    network: SupernetSection
    search: SearchSection
    method: Mapping[str, Any] = option("The method's own options, by name; see Search methods.", {})
    alphas: Alphas


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Common):
    """The config of a training."""

    mode: str = option("train, or eval: evaluate the workdir's newest checkpoint.", "train")
    seeds: int = option("Networks to train, each with its own seed.", 3)
    network: NetworkSection


@dataclasses.dataclass(frozen=True)
class SampleSection(Section):
    """Which architectures a sweep trains."""

    count: int = option("Architectures to draw.", 500)
    architectures: str = option(
        "A file that lists the cells to train; empty: random cells are drawn.", ""
    )
    nodes: int = option("Nodes of a cell of the space darts, besides its two inputs.", 4)
    parameters: tuple[int, int] = option(
        "The least and the most parameters of a drawn cell's network in the space darts, with 20 "
        "cells of width 16 for CIFAR-10.",
        (685_000, 906_000),
    )


@dataclasses.dataclass(frozen=True)
class Scores(Section):
    """From what a sweep computes scores."""

    images: int = option("Training images of which a score is computed.", 64)
    supernet: str = option(
        "The workdir of a single-path search, for scores of shared weights; empty: none.", ""
    )


@dataclasses.dataclass(frozen=True)
class Sweep(Section):
    """Where the trainings of a sweep run."""

    engine: str = option(
        "What runs the trainings: local (processes of this machine), or ray.", "local"
    )
    address: str = option("The address of the Ray cluster; auto: the one that Ray finds.", "auto")
    shard: str = option(
        "i/n: of the architectures only every n-th, from number i (from 0) on.", "0/1"
    )
    program: str = option(
        "How trainings are compiled: shared (one program for all cells of a space and task, in "
        "which the cell is data), own (one for each cell), or auto: shared for short trainings.",
        "auto",
    )
    together: int = option(
        "Architectures that one shared program trains at once; 0: one on CPUs, 16 on accelerators.",
        0,
    )
    workers_per_device: int = option("Trainings that share an accelerator at a time.", 1)
    cores_per_worker: int = option("CPU cores of a training, on machines without accelerators.", 1)
    attempts: int = option("Crashed processes after which a training counts as failed.", 3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig(Section):
    """The config of a sweep."""

    experiment: str = option("What is run: search, train, or sample.", "sample")
    seed: int = option("The seed of the drawn architectures; `training` has that of trainings.", 0)
    sample: SampleSection
    tasks: tuple[str, ...] = option(
        "What architectures are trained on: names of tasks, and of scores (synflow, naswot, ...).",
        ("classification", "rotation", "colorization", "jigsaw"),
    )
    scores: Scores
    training: TrainConfig
    recipes: Mapping[str, Any] = option(
        "Under a task's name the fields of `training` that differ for it.", {}
    )
    sweep: Sweep


def _config(kind: type[Section], experiment: str) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(options.defaults(kind, experiment))


def search() -> ml_collections.ConfigDict:
    """Every field of a search with its default: the ImageNet-1K rotation recipe of the paper.

    Recipes in configs/ start from this and change what differs; `sections` says what fields mean.
    """
    return _config(SearchConfig, "search")


def training() -> ml_collections.ConfigDict:
    """Every field of the evaluation phase with its default: the paper's ImageNet-1K recipe."""
    return _config(TrainConfig, "train")


def sample() -> ml_collections.ConfigDict:
    """Every field of a sample-based experiment with its default: the paper's DARTS, CIFAR-10.

    `training` is what all tasks share, a config of the evaluation phase; `recipes` holds what
    differs for a task, under the task's name. Neither the genotype nor the task of `training` is
    used.
    """
    shared = training()
    shared.dataset.name = "cifar10"
    shared.task.update(label_smoothing=0.0, grid=2, permutations=24)
    shared.input.update(crop=32, resize=32, train_crop="none", lighting=0.0)
    shared.network.update(width="16", cells=20, stem="cifar", auxiliary_weight=0.0)
    shared.weights.update(learning_rate=0.1, warmup_epochs=0, weight_decay=5e-4)
    shared.train.update(batch_size=128, epochs=100, precise_bn_images=1024)
    config = options.defaults(SampleConfig, "sample")
    return ml_collections.ConfigDict({**config, "training": shared.to_dict()})


def of_unit(
    config: ml_collections.ConfigDict, task: str, cell: str, score: bool = False
) -> ml_collections.ConfigDict:
    """The config of the trainings of one architecture on one task.

    Args:
      config: of a sample-based experiment.
      task: a name of `unnas_jax.tasks`, or of a score.
      cell: a text or name for `network.genotype`.
      score: whether it is a score, which takes network, images and seeds from the config.

    Raises:
      UserError: `recipes` changes a field that does not exist, or its type.
    """
    unit = ml_collections.ConfigDict(config.training.to_dict())
    recipe = config.recipes.get(task, {})
    try:
        with unit.unlocked():
            unit.update(recipe)
    except (TypeError, ValueError) as error:
        raise UserError(f"config.recipes.{task}: {' '.join(str(error).split())}") from error
    if not score:
        unit.task.name = task
    unit.network.genotype = cell
    return unit


SCHEMAS = {"search": search, "train": training, "sample": sample}
"""The experiments, by the value of config.experiment."""

RECORDS: dict[str, type[Section]] = {
    "search": SearchConfig,
    "train": TrainConfig,
    "sample": SampleConfig,
}
"""The records of their configs."""


def record(config: Config) -> SearchConfig | TrainConfig:
    """The record of the config of a search or a training."""
    if isinstance(config, SearchConfig | TrainConfig):
        return config
    kind = SearchConfig if options.as_dict(config)["experiment"] == "search" else TrainConfig
    return kind.of(config)


def _as_json(value: Any) -> Any:
    """Tuples come back from JSON as lists."""
    return [_as_json(each) for each in value] if isinstance(value, tuple | list) else value


def difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines `key: old -> new` for every field in which two configs differ."""
    lines = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key, "(absent)"), new.get(key, "(absent)")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += difference(a, b, f"{prefix}{key}.")
        elif _as_json(a) != _as_json(b):
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines


def completed(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the defaults of the fields that it lacks, sections included."""
    result = {**defaults, **config}
    for key, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(result[key], Mapping):
            result[key] = completed(result[key], value)
    return result


def is_yaml(path: str) -> bool:
    """Whether the path of a config is that of a YAML file, which `unnas_jax.convert` reads."""
    return path.endswith((".yaml", ".yml"))


def workdir(config_path: str) -> str:
    """The default workdir of a `--config`: runs/<config name>, with its argument if it has one.

    The PyTorch release's YAML files bear the same names in many directories: the name is then the
    whole path below `configs`.
    """
    path, _, argument = config_path.partition(".py:")
    if is_yaml(path):
        parts = os.path.splitext(path)[0].split("/")
        start = parts.index("configs") + 1 if "configs" in parts else len(parts) - 1
        return os.path.join("runs", "_".join(parts[start:]))
    name = os.path.basename(path).removesuffix(".py")
    if not re.fullmatch(r"[^():,+]{0,200}", argument):  # The text of a cell, which is no name.
        argument = hashlib.sha256(argument.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    # Only the directory of a genotype.json tells searches apart.
    words = [word for word in argument.removesuffix("/genotype.json").split("/") if word]
    return os.path.join("runs", "_".join([name, *words[-1:]]))
