"""Runs from Python: of a config, of a recipe by name, or on images in memory."""

import copy
import hashlib
import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import ml_collections
import numpy as np

from unnas_jax.analysis import results
from unnas_jax.commands.command_line import read_config
from unnas_jax.config import recipes, run_config, schema, unknown_keys
from unnas_jax.core import logs
from unnas_jax.core.errors import UserError
from unnas_jax.data import decoding, registry
from unnas_jax.data.arrays import arrays
from unnas_jax.data.records import Dataset, fingerprint
from unnas_jax.learning.optim import Optimizer
from unnas_jax.runs import search as search_lib
from unnas_jax.runs import train as train_lib
from unnas_jax.runs import workdir as workdir_lib
from unnas_jax.spaces import names
from unnas_jax.spaces.registry import Cells

What: TypeAlias = Any
"""A recipe's name or file; an `ml_collections.ConfigDict`; a `Dataset`, such as `arrays` makes; or
images, uint8 (N, H, W, 3)."""

_AUXILIARY = 29  # Pixels from which on a CIFAR network can have an auxiliary head.
_SMALL = 64  # Pixels of images on which networks begin at full resolution, as for CIFAR.


def search(
    what: What,
    workdir: str | os.PathLike[str],
    *,
    weights_optimizer: Optimizer | None = None,
    alphas_optimizer: Optimizer | None = None,
    progress: bool = True,
    **overrides: Any,
) -> results.Run:
    """Runs a search to its end, or continues the one in `workdir`.

        found = search(images, "runs/mine", task="rotation", train={"epochs": 10})

    Images in memory are searched on with DARTS' recipe for CIFAR-10, if they have up to 64 pixels,
    or that of ImageNet for few images; they are decoded in threads of this process.

    Args:
      what: see `What`.
      workdir: where its files are: a directory, or an address gs://BUCKET/NAME.
      weights_optimizer, alphas_optimizer: of optax, in the place of those that the config names;
        its rates, decay and clipping do not count then. A call that continues a run has to give
        the same ones.
      progress: shows lines on what it does, unless the program has a logging handler of its own.
      overrides: values of the config; sections as dicts. A string in the place of the sections
        `task` and `dataset` is their `name`.

    Returns:
      What is in the workdir: `genotype`, `softmax` (the operations' weights), `alphas` (their
      history), `records` (metrics), `finished`. It is not finished if a signal stopped it; the
      same call continues.

    Raises:
      UserError: bad input, or something became NaN or infinite.
      Interruption: what the run needs failed; the same call continues it.
    """
    config = _config(what, "search", overrides, _search_on)
    with logs.shown(progress):
        search_lib.search(
            config,
            os.fspath(workdir),
            optimizers=_given(weights=weights_optimizer, alphas=alphas_optimizer),
        )
    with workdir_lib.opened(os.fspath(workdir), write=False) as place:
        return results.read(place.path)


def train(
    what: What,
    workdir: str | os.PathLike[str],
    cells: Cells | str = "",
    *,
    weights_optimizer: Optimizer | None = None,
    progress: bool = True,
    **overrides: Any,
) -> dict[str, Any]:
    """Trains a discrete network from scratch, or continues the training in `workdir`.

    Args:
      what: see `What`; images need labels, but for pretext tasks.
      workdir: as for `search`.
      cells: of a search in any space, a published genotype's name, or the path of a genotype.json;
        empty: the config's. Cells of a benchmark's space have the benchmark's network, unless the
        config is of this space or `overrides` say otherwise.
      weights_optimizer: as for `search`.
      progress: as for `search`.
      overrides: as for `search`.

    Returns:
      The content of `result.json`: `values` (the metric of each seed), `mean`, `std`, ...

    Raises:
      UserError: bad input, or something became NaN or infinite.
      Interruption: what the run needs failed; the same call continues it.
    """
    if cells is None:
        raise UserError("cells=None: the search has found none yet; call it again to its end")
    config = _config(what, "train", overrides, _train_on, str(cells))
    with logs.shown(progress):
        optimizers = _given(weights=weights_optimizer)
        return train_lib.train(config, os.fspath(workdir), optimizers=optimizers)


def _given(**optimizers: Optimizer | None) -> dict[str, Optimizer]:
    return {name: value for name, value in optimizers.items() if value is not None}


def _config(
    what: What, experiment: str, overrides: Mapping[str, Any], recipe_for: Any, cells: str = ""
) -> ml_collections.ConfigDict:
    if isinstance(what, np.ndarray):
        what = arrays(what)
    if isinstance(what, Dataset):
        config = recipe_for(_side(what), _task(overrides.get("task"), experiment))
        config.dataset.name = _registered(what)
        config.workers = 0
    elif isinstance(what, ml_collections.ConfigDict):
        config = copy.deepcopy(what)
    elif isinstance(what, str):
        config = read_config(what)
    else:
        raise UserError(
            f"give a config, a recipe's name, or images as uint8 (N, H, W, 3), not "
            f"{type(what).__name__}"
        )
    of_config = config.get("experiment")
    if of_config != experiment:
        kinds = run_config.KINDS
        raise UserError(
            f"this is the config of {kinds.get(of_config, of_config)}, not of {kinds[experiment]}"
        )
    if cells:
        _take(config, cells)
    _override(config, overrides)
    return config


def _take(config: ml_collections.ConfigDict, cells: str) -> None:
    """Has a training's config train some cells, in their space if they are not of its own."""
    config.network.genotype = cells
    own = config.network.space
    space = names.space_of(cells, own)
    if space not in (None, own):
        config.network.update(recipes.NETWORKS.get(space, {"space": space}))


def _override(config: ml_collections.ConfigDict, overrides: Mapping[str, Any]) -> None:
    """Writes values into a config; types are checked with the rest of it."""
    with config.unlocked(), config.ignore_type():
        for key, value in _leaves(config.to_dict(), overrides):
            section = config
            *above, last = key.split(".")
            error = unknown_keys.error_of(key, config.to_dict(), schema.SCHEMAS)
            if error is not None and ".".join(above) not in schema.FREE:
                raise error
            for part in above:
                section = section[part]
            section[last] = value


def _leaves(
    config: Mapping[str, Any], overrides: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any]]:
    """The values of overrides by `section.key`."""
    leaves: list[tuple[str, Any]] = []
    for key, value in overrides.items():
        section = config.get(key)
        if not prefix and key in ("task", "dataset") and isinstance(value, str):
            value = {"name": value}
        if isinstance(section, Mapping) and isinstance(value, Mapping):
            leaves += _leaves(section, value, f"{prefix}{key}.")
        else:
            leaves.append((f"{prefix}{key}", value))
    return leaves


def _task(task: Any, experiment: str) -> str:
    """The task: what the overrides say, or rotation for a search and the labels for a training."""
    if isinstance(task, Mapping):
        task = task.get("name")
    return task or ("rotation" if experiment == "search" else "classification")


def _side(dataset: Dataset) -> int:
    """The shorter side of the first image, in pixels."""
    record = dataset.splits["train"][0]
    height, width, _ = decoding.decode(record["image"], apply_exif=dataset.apply_exif).shape
    return min(height, width)


def _sizes(config: ml_collections.ConfigDict, side: int) -> None:
    if side > _SMALL:
        side = min(side, 128)
        config.input.update(crop=side, resize=round(8 / 7 * side))
    else:
        config.input.update(crop=side, resize=side)


def _search_on(side: int, task: str) -> ml_collections.ConfigDict:
    short = {name: short for short, name in recipes.TASKS.items()}.get(task, "rot")
    if side > _SMALL:
        config = recipes.imagenet_1k(short)
        config.train.epochs, config.search.arch_start_epoch = 20, 4.0
    else:
        config = recipes.cifar10(short)
    config.task.name = task
    _sizes(config, side)
    return config


def _train_on(side: int, task: str) -> ml_collections.ConfigDict:
    config: ml_collections.ConfigDict = read_config(
        "eval_folder" if side > _SMALL else "eval_cifar10"
    )
    config.task.name = task
    _sizes(config, side)
    if task != "classification" or side < _AUXILIARY:
        config.network.auxiliary_weight = 0.0
    if task not in ("classification", "rotation"):
        config.input.pad = 0  # It would tell a jigsaw's outer tiles, and has no colour to learn.
    return config


def _registered(dataset: Dataset) -> str:
    """The name under which a dataset is registered, the same for the same data."""
    known = fingerprint(dataset)
    if not all(split["names"] for split in known.values()):
        raise UserError(
            f"dataset {dataset.name}: it does not say which images it has; register it with "
            "register_dataset, and give its name as dataset"
        )
    facts = repr((known, dataset.num_classes, dataset.class_names, dataset.mean, dataset.std))
    name = f"{dataset.name}_{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
    if name not in registry.DATASETS:
        registry.register_dataset(name, dataset)
    return name
