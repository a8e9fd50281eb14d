"""The schema of a search's config: every field, its default, and what values are possible."""

import math
import os
from collections.abc import Mapping
from typing import Any

import ml_collections

from unnas_jax.errors import UserError


def search() -> ml_collections.ConfigDict:
    """Every field of a search with its default: the ImageNet-1K rotation recipe of the paper.

    Recipes in configs/ start from this and change what differs. Rates are per step, sizes in
    pixels; `batch_size` counts images of one global batch before the task multiplies them.
    """
    return ml_collections.ConfigDict(
        {
            "experiment": "search",
            "seed": 0,
            "dataset": {
                "name": "imagenet2012",  # A name of unnas_jax.data, or tfds:NAME[/CONFIG][:VERSION].
                "path": "",  # The folder of images, for the dataset `folder`.
                "data_dir": "",  # Where TFDS keeps datasets; empty: $TFDS_DATA_DIR or its default.
                "subset": "",  # A list of files, as `unnas_jax.data.prepare` writes; empty: all.
            },
            "input": {
                "crop": 224,
                "resize": 256,  # The short side before an evaluation's centre crop.
                "train_crop": "random_resized",  # One of unnas_jax.data.crops.TRAIN_CROPS.
                "pad": 0,  # Pad by so many zeros after normalisation and crop again (CIFAR).
                "lighting": 0.1,  # Standard deviation of PCA lighting; 0 turns it off.
                "gray": 0.0,  # The share of training images turned gray.
            },
            "task": {
                "name": "rotation",
                "grid": 3,  # Jigsaw: patches a side.
                "permutations": 1000,  # Jigsaw: classes.
                "aspp_channels": 64,  # Segmentation: of each branch of the head.
                "aspp_rates": (6,),  # Segmentation: the dilations of its 3x3 convolutions.
            },
            "network": {"width": 16, "cells": 8, "nodes": 4, "stem": "imagenet"},
            "search": {
                "order": 1,  # 1: alpha gradient at the current weights; 2: through a weight step.
                "arch_start_epoch": 1.0,  # Alphas stand still before this epoch.
                "formulation": "auto",  # dense, depthwise, or the faster one for the backend.
            },
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
            "precision": "auto",  # float32, bfloat16, or bfloat16 where there is an accelerator.
            "log_every_steps": 50,
            "checkpoint_every_steps": 1000,
            "workers": -1,  # Processes that decode images; -1: by the number of cores; 0: threads.
        }
    )


def as_dict(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config in the types of JSON."""
    return dict(config.to_dict())


def _as_json(value: Any) -> Any:
    """Tuples come back from JSON as lists."""
    return list(value) if isinstance(value, tuple) else value


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


def _check(condition: bool, key: str, value: Any, remedy: str) -> None:
    if not condition:
        raise UserError(f"config.{key}={value!r}: {remedy}")


def _check_keys(config: Mapping[str, Any], schema: Mapping[str, Any], prefix: str = "") -> None:
    for key in config:
        if key not in schema:
            raise UserError(
                f"config.{prefix}{key}: no such key; the keys here are {', '.join(sorted(schema))}"
            )
    for key, default in schema.items():
        if key not in config:
            raise UserError(f"config.{prefix}{key}: missing; its default is {default!r}")
        value = config[key]
        if isinstance(default, Mapping):
            _check(isinstance(value, Mapping), prefix + key, value, "give the keys of a section")
            _check_keys(value, default, f"{prefix}{key}.")
            continue
        number = isinstance(default, float) and isinstance(value, int)
        same = type(value) is type(default) or number
        _check(same, prefix + key, value, f"must be of type {type(default).__name__}")
        if isinstance(value, float):
            _check(math.isfinite(value), prefix + key, value, "must be finite")


def validate(config: ml_collections.ConfigDict) -> None:
    """Refuses unknown keys, wrong types and impossible values before anything is built.

    Raises:
      UserError: names the key, its value and what to use instead.
    """
    from unnas_jax.data import crops  # Here, so that reading a config does not import cv2.
    from unnas_jax.tasks import registry

    c = config.to_dict()
    _check_keys(c, search().to_dict())

    def positive(*keys: str) -> None:
        for key in keys:
            section, field = key.split(".")
            _check(c[section][field] > 0, key, c[section][field], "must be greater than 0")

    def not_negative(*keys: str) -> None:
        for key in keys:
            section, field = key.split(".")
            _check(c[section][field] >= 0, key, c[section][field], "must not be negative")

    _check(c["experiment"] == "search", "experiment", c["experiment"], "use 'search'")
    _check(c["seed"] >= 0, "seed", c["seed"], "must not be negative")
    positive("network.width", "network.nodes", "train.batch_size", "eval.batch_size")
    positive("train.epochs", "weights.learning_rate", "weights.clip_norm", "input.crop")
    positive("alphas.learning_rate", "alphas.init_scale")
    not_negative("weights.final_learning_rate", "weights.weight_decay", "alphas.weight_decay")
    not_negative("search.arch_start_epoch", "input.lighting", "input.pad")
    task = c["task"]["name"]
    _check(
        task in registry.TASKS, "task.name", task, f"use one of {', '.join(sorted(registry.TASKS))}"
    )
    registry.TASKS[task].validate(c)
    stem, cells, width = c["network"]["stem"], c["network"]["cells"], c["network"]["width"]
    _check(stem in ("imagenet", "cifar"), "network.stem", stem, "use 'imagenet' or 'cifar'")
    _check(cells >= 3, "network.cells", cells, "use at least 3, for cells of both kinds")
    _check(width % 2 == 0, "network.width", width, "must be even: reductions halve it")
    order = c["search"]["order"]
    _check(order in (1, 2), "search.order", order, "use 1 or 2")
    form = c["search"]["formulation"]
    forms = ("auto", "dense", "depthwise")
    _check(form in forms, "search.formulation", form, f"use one of {', '.join(forms)}")
    precision, precisions = c["precision"], ("auto", "float32", "bfloat16")
    _check(precision in precisions, "precision", precision, f"use one of {', '.join(precisions)}")
    start, epochs = c["search"]["arch_start_epoch"], c["train"]["epochs"]
    _check(
        start < epochs,
        "search.arch_start_epoch",
        start,
        f"must be smaller than train.epochs={epochs}, or no alpha ever moves",
    )
    for key in ("momentum",):
        _check(0 <= c["weights"][key] < 1, f"weights.{key}", c["weights"][key], "must be in [0, 1)")
    for key in ("b1", "b2"):
        _check(0 <= c["alphas"][key] < 1, f"alphas.{key}", c["alphas"][key], "must be in [0, 1)")
    gray = c["input"]["gray"]
    _check(0 <= gray <= 1, "input.gray", gray, "is a share from 0 to 1")
    kind = c["input"]["train_crop"]
    kinds = tuple(crops.TRAIN_CROPS)
    _check(kind in kinds, "input.train_crop", kind, f"use one of {', '.join(kinds)}")
    crop, resize = c["input"]["crop"], c["input"]["resize"]
    _check(crop <= resize, "input.crop", crop, f"is larger than input.resize={resize}")
    steps = c["train"]["max_steps"]
    _check(steps == -1 or steps > 0, "train.max_steps", steps, "use -1 (all epochs) or at least 1")
    images = c["eval"]["max_images"]
    _check(images == -1 or images > 0, "eval.max_images", images, "use -1 (all) or at least 1")
    _check(c["log_every_steps"] > 0, "log_every_steps", c["log_every_steps"], "must be at least 1")
    every = c["checkpoint_every_steps"]
    _check(every > 0, "checkpoint_every_steps", every, "must be at least 1")
    _check(c["workers"] >= -1, "workers", c["workers"], "use -1 (by cores), 0 (threads) or more")
    name, path = c["dataset"]["name"], c["dataset"]["path"]
    if name == "folder":
        _check(bool(path), "dataset.path", path, "give the folder of images")
    else:
        _check(
            not path, "dataset.path", path, f"only the dataset 'folder' has a path, not {name!r}"
        )


def workdir(config_path: str) -> str:
    """The default workdir of a config file: runs/<config name>."""
    return os.path.join("runs", os.path.splitext(os.path.basename(config_path))[0])
