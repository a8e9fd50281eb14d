"""The schemas of the experiments' configs: fields, defaults, and what values are possible."""

import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

from unnas_jax.config import unknown_keys
from unnas_jax.core.errors import UserError

REMATERIALISE = ("none", "cell")
"""What a search's backward pass computes again instead of keeping it."""


def _common() -> dict[str, Any]:
    """The fields that all experiments have."""
    return {
        "seed": 0,
        "dataset": {
            "name": "imagenet2012",  # A name of unnas_jax.data, or tfds:NAME[/CONFIG][:VERSION].
            "path": "",  # The folder of images, for the dataset `folder`.
            "data_dir": "",  # Where TFDS keeps datasets; empty: $TFDS_DATA_DIR or its default.
            "subset": "",  # A list of files, as `unnas_jax.commands.prepare` writes; empty: all.
            "max_pixels": 100_000_000,  # Of an image of `folder`; larger ones are left out.
        },
        "input": {
            "crop": 224,
            "resize": 256,  # The short side before an evaluation's centre crop.
            "train_crop": "random_resized",  # One of unnas_jax.data.crops.TRAIN_CROPS.
            "pad": 0,  # Pad by so many zeros after normalisation and crop again (CIFAR).
            "lighting": 0.1,  # Standard deviation of PCA lighting; 0 turns it off.
            "gray": 0.0,  # The share of training images turned gray.
            "resampling": "area",  # One of unnas_jax.data.crops.RESAMPLINGS.
            # Two habits of the PyTorch release, to which its weights are used. Red takes blue's
            # mean, deviation and lighting, and blue red's;
            "swapped_statistics": False,
            # images are mirrored after augmentation, and label maps are not.
            "mirrored": False,
        },
        "task": {
            "name": "rotation",
            "grid": 3,  # Jigsaw: patches a side.
            "permutations": 1000,  # Jigsaw: classes.
            "permutation_list": "",  # Jigsaw: an .npy file of them; empty: those of this package.
            "aspp_channels": 64,  # Segmentation: of each branch of the head.
            "aspp_rates": (6,),  # Segmentation: the dilations of its 3x3 convolutions.
            "label_smoothing": 0.0,  # Classification: the share of the wrong classes.
        },
        "precision": "auto",  # float32, bfloat16, or bfloat16 where there is an accelerator.
        "log_every_steps": 50,
        "checkpoint_every_steps": 1000,
        "workers": -1,  # Processes that decode images; -1: by the number of cores; 0: threads.
    }


def search() -> ml_collections.ConfigDict:
    """Every field of a search with its default: the ImageNet-1K rotation recipe of the paper.

    Recipes in configs/ start from this and change what differs. Rates are per step, sizes in
    pixels; `batch_size` counts images of one global batch before the task multiplies them.
    """
    return ml_collections.ConfigDict(
        {
            "experiment": "search",
            **_common(),
            "network": {
                "width": 16,
                "cells": 8,
                "nodes": 4,
                "stem": "imagenet",
                # The operations of all edges, names of unnas_jax.spaces.darts.operations; empty:
                # those of DARTS. Or under `normal` and `reduce` such a list, or one for each edge.
                "operations": (),
            },
            "search": {
                "method": "darts",  # One of unnas_jax.methods.
                "order": 1,  # 1: alpha gradient at the current weights; 2: through a weight step.
                "arch_start_epoch": 1.0,  # Alphas stand still before this epoch.
                "formulation": "auto",  # One of unnas_jax.spaces.darts.supernet.FORMULATIONS.
                "rematerialise": "none",  # cell: keep only cells' inputs and compute them again.
            },
            "method": {},  # The method's own options; see its `defaults`.
            "weights": {
                "learning_rate": 0.05,
                "final_learning_rate": 0.0,
                "momentum": 0.9,
                "weight_decay": 3e-5,
                "clip_norm": 5.0,
            },
            "alphas": {
                "learning_rate": 1.5e-4,
                "b1": 0.5,
                "b2": 0.999,
                "weight_decay": 1e-3,
                "init_scale": 1e-3,
            },
            "train": {
                "batch_size": 32,
                "epochs": 2,
                "max_steps": -1,  # Stop after so many steps; -1: all epochs.
            },
            "eval": {
                "batch_size": 256,
                "max_images": -1,  # Images of the held-out half to evaluate on; -1: all.
            },
        }
    )


def training() -> ml_collections.ConfigDict:
    """Every field of the evaluation phase with its default: the paper's ImageNet-1K recipe."""
    config = ml_collections.ConfigDict(
        {
            "experiment": "train",
            "mode": "train",  # Or eval: evaluate the newest checkpoint of the workdir.
            "seeds": 3,  # Independent trainings, with the seeds seed, seed + 1, ...
            **_common(),
            "network": {
                "space": "darts",  # Or nasbench101, nasbench201.
                "genotype": "darts_v2",  # A published name, a genotype.json, or a text of cells.
                "width": "fit",  # A number, or fit: the largest in the paper's window.
                "cells": 14,  # In the spaces darts and nasbench201.
                "stacks": 3,  # In the space nasbench101, each with so many modules:
                "modules": 3,
                "stem": "imagenet",
                "auxiliary_weight": 0.4,  # Of the auxiliary head's loss; 0: no such head.
                "drop_path": 0.0,  # The probability that is reached at the last epoch.
            },
            "weights": {
                "learning_rate": 0.5,
                "final_learning_rate": 0.0,
                "warmup_epochs": 5,
                "warmup_factor": 0.1,
                "momentum": 0.9,
                "nesterov": True,
                "weight_decay": 3e-5,
                "clip_norm": 0.0,  # 0: gradients are not clipped.
            },
            "train": {
                "batch_size": 1024,
                "epochs": 250,
                "max_steps": -1,  # Stop after so many steps; -1: all epochs.
                "seeds_together": -1,  # Seeds in one program; -1: one on CPUs, otherwise all.
                "ema": 0.0,  # The decay of the weights' and statistics' moving average; 0: none.
                "precise_bn_images": 0,  # Images for BN statistics before evaluations; 0: none.
            },
            "eval": {
                "batch_size": 1000,
                "max_images": -1,  # Images of the held-out split to evaluate on; -1: all.
                "every_epochs": 1,
                "crop": "centre",  # Of the short side resized; or whole, for segmentation.
                "whole_size": (1025, 2049),  # Height and width that whole images are padded to.
            },
        }
    )
    config.task.name = "classification"
    config.task.label_smoothing = 0.1
    return config


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
    return ml_collections.ConfigDict(
        {
            "experiment": "sample",
            "seed": 0,  # Of the draws; the trainings' seeds are those of `training`.
            "sample": {
                "count": 500,
                "architectures": "",  # A list of cells to take instead of drawing them.
                "nodes": 4,  # Of DARTS cells.
                # The least and the most of a DARTS network of 20 cells of width 16 for CIFAR-10.
                "parameters": (685_000, 906_000),
            },
            "tasks": ("classification", "rotation", "colorization", "jigsaw"),
            "training": shared.to_dict(),
            "recipes": {},
            "sweep": {
                "engine": "local",  # Or ray.
                "address": "auto",  # Of the Ray cluster.
                "shard": "0/1",  # i/n: every n-th architecture from the i-th on.
                "workers_per_device": 1,  # Units that share an accelerator.
                "cores_per_worker": 1,  # On machines without accelerators.
                "attempts": 3,  # Workers that a unit may take with it before it counts as failed.
            },
        }
    )


def of_unit(config: ml_collections.ConfigDict, task: str, cell: str) -> ml_collections.ConfigDict:
    """The config of the trainings of one architecture on one task.

    Args:
      config: of a sample-based experiment.
      task: a name of `unnas_jax.tasks`.
      cell: a text or name for `network.genotype`.

    Raises:
      UserError: `recipes` changes what there is not, or its type.
    """
    unit = ml_collections.ConfigDict(config.training.to_dict())
    recipe = config.recipes.get(task, {})
    try:
        with unit.unlocked():
            unit.update(recipe)
    except (TypeError, ValueError) as error:
        raise UserError(f"config.recipes.{task}: {' '.join(str(error).split())}") from error
    unit.task.name = task
    unit.network.genotype = cell
    return unit


SCHEMAS = {"search": search, "train": training, "sample": sample}
"""The experiments, by the value of config.experiment."""


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


def _check(condition: bool, key: str, value: Any, remedy: str) -> None:
    if not condition:
        raise UserError(f"config.{key}={value!r}: {remedy}")


def _check_keys(
    config: Mapping[str, Any],
    schema: Mapping[str, Any],
    prefix: str = "",
    whole: Mapping[str, Any] | None = None,
) -> None:
    whole = schema if whole is None else whole
    for key in config:
        if key not in schema:
            error = unknown_keys.error_of(f"{prefix}{key}", whole, SCHEMAS)
            assert error is not None
            raise error
    for key, default in schema.items():
        if key not in config:
            raise UserError(f"config.{prefix}{key}: missing; its default is {default!r}")
        value = config[key]
        if isinstance(default, Mapping):
            _check(isinstance(value, Mapping), prefix + key, value, "give the keys of a section")
            _check_keys(value, default, f"{prefix}{key}.", whole)
            continue
        if prefix + key == "network.operations" and isinstance(value, Mapping):
            continue  # By kind of cell.
        number = isinstance(default, float) and isinstance(value, int)
        same = type(value) is type(default) or number
        _check(same, prefix + key, value, f"must be of type {type(default).__name__}")
        if isinstance(value, float):
            _check(math.isfinite(value), prefix + key, value, "must be finite")


def _check_numbers(config: Mapping[str, Any], keys: str, minimum: float, strict: bool) -> None:
    """Checks that fields, given as `section.key` words, are at least or greater than a minimum."""
    words = "greater than" if strict else "at least"
    for key in keys.split():
        value: Any = config
        for part in key.split("."):
            value = value[part]
        good = value > minimum if strict else value >= minimum
        _check(good, key, value, f"must be {words} {minimum:g}")


def _check_choice(key: str, value: Any, choices: Iterable[str]) -> None:
    _check(value in choices, key, value, f"use one of {', '.join(sorted(choices))}")


def validate(config: ml_collections.ConfigDict) -> None:
    """Refuses unknown keys, wrong types and impossible values before anything is built.

    Raises:
      UserError: names the key, its value and what to use instead.
    """
    from unnas_jax.data import crops  # Here, so that reading a config does not import cv2.
    from unnas_jax.tasks import registry

    c = config.to_dict()
    experiment = c.get("experiment")
    _check_choice("experiment", experiment, SCHEMAS)
    if experiment == "sample":
        _validate_sample(config)
        return
    # The options of a search's method are checked with it.
    free: dict[str, Any] = {"method": {}} if experiment == "search" and "method" in c else {}
    _check_keys({**c, **free}, SCHEMAS[str(experiment)]().to_dict())

    _check_numbers(c, "train.batch_size eval.batch_size train.epochs input.crop", 1, strict=False)
    _check_numbers(c, "log_every_steps checkpoint_every_steps", 1, strict=False)
    _check_numbers(c, "weights.learning_rate", 0, strict=True)
    _check_numbers(c, "seed input.lighting input.pad input.gray", 0, strict=False)
    _check_numbers(c, "weights.final_learning_rate weights.weight_decay", 0, strict=False)
    _check_choice("task.name", c["task"]["name"], registry.TASKS)
    registry.TASKS[c["task"]["name"]].validate(c)
    _check_choice("network.stem", c["network"]["stem"], ("imagenet", "cifar"))
    _check_choice("precision", c["precision"], ("auto", "float32", "bfloat16"))
    _check_choice("input.train_crop", c["input"]["train_crop"], crops.TRAIN_CROPS)
    _check_choice("input.resampling", c["input"]["resampling"], crops.RESAMPLINGS)
    cells, momentum = c["network"]["cells"], c["weights"]["momentum"]
    _check(cells >= 3, "network.cells", cells, "use at least 3, for cells of both kinds")
    _check(0 <= momentum < 1, "weights.momentum", momentum, "must be in [0, 1)")
    gray, smoothing = c["input"]["gray"], c["task"]["label_smoothing"]
    _check(gray <= 1, "input.gray", gray, "is a share from 0 to 1")
    _check(0 <= smoothing < 1, "task.label_smoothing", smoothing, "must be in [0, 1)")
    crop, resize = c["input"]["crop"], c["input"]["resize"]
    _check(crop <= resize, "input.crop", crop, f"is larger than input.resize={resize}")
    steps, images = c["train"]["max_steps"], c["eval"]["max_images"]
    _check(steps == -1 or steps > 0, "train.max_steps", steps, "use -1 (all epochs) or at least 1")
    _check(images == -1 or images > 0, "eval.max_images", images, "use -1 (all) or at least 1")
    _check(c["workers"] >= -1, "workers", c["workers"], "use -1 (by cores), 0 (threads) or more")
    _check_numbers(c, "dataset.max_pixels", 1, strict=False)
    name, path = c["dataset"]["name"], c["dataset"]["path"]
    if name == "folder":
        _check(bool(path), "dataset.path", path, "give the folder of images")
    else:
        _check(not path, "dataset.path", path, f"only the dataset 'folder' has one, not {name!r}")
    _validate_search(c) if experiment == "search" else _validate_training(c)


def _validate_search(c: Mapping[str, Any]) -> None:
    from unnas_jax.methods import registry
    from unnas_jax.spaces.darts import supernet

    _check_numbers(c, "network.width network.nodes", 1, strict=False)
    _check_numbers(c, "weights.clip_norm alphas.learning_rate alphas.init_scale", 0, strict=True)
    _check_numbers(c, "alphas.weight_decay search.arch_start_epoch", 0, strict=False)
    width = c["network"]["width"]
    _check(width % 2 == 0, "network.width", width, "must be even: reductions halve it")
    _check_choice("search.rematerialise", c["search"]["rematerialise"], REMATERIALISE)
    _check_choice("search.formulation", c["search"]["formulation"], supernet.FORMULATIONS)
    supernet.validate(c)
    for key in ("b1", "b2"):
        _check(0 <= c["alphas"][key] < 1, f"alphas.{key}", c["alphas"][key], "must be in [0, 1)")
    _check(isinstance(c["method"], Mapping), "method", c["method"], "give the keys of a section")
    registry.validate(c)


def _validate_training(c: Mapping[str, Any]) -> None:
    from unnas_jax.data import crops
    from unnas_jax.spaces import registry
    from unnas_jax.tasks import registry as tasks

    _check_choice("mode", c["mode"], ("train", "eval"))
    _check_numbers(c, "seeds eval.every_epochs network.stacks network.modules", 1, strict=False)
    _check_numbers(c, "weights.clip_norm weights.warmup_epochs", 0, strict=False)
    _check_numbers(c, "network.auxiliary_weight train.precise_bn_images", 0, strict=False)
    width = c["network"]["width"]
    even = width.isdecimal() and int(width) >= 2 and int(width) % 2 == 0
    _check(width == "fit" or even, "network.width", width, "use an even number, or 'fit'")
    for key in ("network.drop_path", "train.ema", "weights.warmup_factor"):
        section, field = key.split(".")
        value = c[section][field]
        _check(0 <= value < 1, key, value, "must be in [0, 1)")
    together = c["train"]["seeds_together"]
    remedy = "use -1 (by the backend) or at least 1"
    _check(together == -1 or together > 0, "train.seeds_together", together, remedy)
    _check_choice("eval.crop", c["eval"]["crop"], crops.EVAL_CROPS)
    task = tasks.TASKS[c["task"]["name"]]
    remedy = f"{task.name} is evaluated on squares; use 'centre'"
    _check(c["eval"]["crop"] == "centre" or task.whole_images, "eval.crop", "whole", remedy)
    _check_choice("network.space", c["network"]["space"], registry.SPACES)
    registry.of_config(c).validate(c)


def _validate_sample(config: ml_collections.ConfigDict) -> None:
    from unnas_jax.spaces import registry as spaces
    from unnas_jax.tasks import registry as tasks

    c, schema = config.to_dict(), sample().to_dict()
    recipes = c.get("recipes", {})
    _check(isinstance(recipes, Mapping), "recipes", recipes, "give a section for each task")
    _check_keys({**c, "recipes": {}}, schema)
    for task in recipes:
        _check_choice(f"recipes.{task}", task, tasks.TASKS)
    _check(len(c["tasks"]) > 0, "tasks", c["tasks"], "give at least one")
    for task in c["tasks"]:
        _check_choice("tasks", task, tasks.TASKS)
    repeated = len(set(c["tasks"])) < len(c["tasks"])
    _check(not repeated, "tasks", c["tasks"], "name each task once")
    _check_numbers(c, "sample.count sample.nodes", 1, strict=False)
    keys = "sweep.workers_per_device sweep.cores_per_worker sweep.attempts"
    _check_numbers(c, keys, 1, strict=False)
    _check_numbers(c, "seed", 0, strict=False)
    window = c["sample"]["parameters"]
    numbers = len(window) == 2 and all(isinstance(size, int) for size in window)
    remedy = "give the least and the most number of parameters"
    _check(numbers and window[0] <= window[1], "sample.parameters", window, remedy)
    _check_choice("sweep.engine", c["sweep"]["engine"], ("local", "ray"))
    index, slash, count = c["sweep"]["shard"].partition("/")
    part = slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)
    remedy = "give i/n, the part i, counted from 0, of n parts"
    _check(bool(part), "sweep.shard", c["sweep"]["shard"], remedy)
    mode = c["training"]["mode"]
    _check(mode == "train", "training.mode", mode, "use 'train'")
    space = c["training"]["network"]["space"]
    _check_choice("training.network.space", space, spaces.SPACES)
    for task in c["tasks"]:
        try:
            validate(of_unit(config, task, spaces.SPACES[space].ANY))
        except UserError as error:
            words = str(error)
            if not words.startswith("config.recipes."):
                words = re.sub(r"\bconfig\.", "config.training.", words)
                words += f" (with config.recipes.{task})" if task in recipes else ""
            raise UserError(words) from error


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
    # Of a path to a genotype.json only the directory tells searches apart.
    words = [word for word in argument.removesuffix("/genotype.json").split("/") if word]
    return os.path.join("runs", "_".join([name, *words[-1:]]))
