"""The schemas of the experiments' configs: fields, defaults, and what values are possible."""

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any

import ml_collections

from unnas_jax.core.errors import UserError

FREE = ("method", "weights.optimizer_options", "alphas.optimizer_options")
"""Sections with any keys, which are checked by what takes them."""

REMATERIALISE = ("none", "cell")
"""What a search's backward pass computes again instead of keeping it."""


def _common() -> dict[str, Any]:
    """The fields that all experiments have."""
    return {
        "seed": 0,
        "dataset": {
            "name": "imagenet2012",  # A name of unnas_jax.data, or tfds:NAME[/CONFIG][:VERSION].
            "path": "",  # The folder of images, for the datasets `folder` and `folder_maps`.
            "data_dir": "",  # Where TFDS keeps datasets; empty: $TFDS_DATA_DIR or its default.
            "subset": "",  # A list of files, as `unnas_jax.commands.prepare` writes; empty: all.
            "max_pixels": 100_000_000,  # Of an image of `folder`; larger ones are left out.
            "ignore_label": 255,  # Of label maps of `folder_maps`: pixels that do not count.
        },
        "input": {
            "crop": 224,
            "resize": 256,  # The short side before an evaluation's centre crop.
            "train_crop": "random_resized",  # One of unnas_jax.data.crops.TRAIN_CROPS.
            "pad": 0,  # Pad by so many zeros after normalisation and crop again (CIFAR).
            "cutout": 0,  # The side of a square that training images lose; 16 for CIFAR in DARTS.
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
            "random_classes": 0,  # Random labels: classes; 0: as many as the dataset has.
            "mask_ratio": 0.75,  # Masked: the share of the patches that is hidden.
            "mask_patch": 16,  # Masked: a patch's side in pixels.
            "temperature": 0.5,  # Contrastive: of the softmax over similarities.
            "projection": 128,  # Contrastive: the dimensions in which views are compared.
            "view_area": 0.2,  # Contrastive: the least share of an image that a view shows.
            "targets": "darts",  # Regression: one of unnas_jax.tasks.combinations.
        },
        "precision": "auto",  # float32, bfloat16, or bfloat16 where there is an accelerator.
        "log_every_steps": 50,
        "checkpoint_every_steps": 1000,
        "trackers": (
            "tensorboard",
        ),  # Names of unnas_jax.learning.trackers: tensorboard, wandb, ...
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
                "space": "darts",  # Or nasbench201, in which single_path searches.
                "width": 16,
                "cells": 8,
                "nodes": 4,
                "stem": "imagenet",
                # The operations of all edges, names of unnas_jax.spaces.darts.operations; empty:
                # those of DARTS. Or under `normal` and `reduce` such a list, or one for each edge.
                "operations": (),
                "partial_channels": 1,  # Operations work on one channel of so many (PC-DARTS).
                "auxiliary_skip": False,  # One more skip on every edge, which decays (DARTS-).
                "affine": False,  # Whether batch norms in cells of DARTS have scale and bias.
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
                "optimizer": "sgd",  # A name of unnas_jax.learning.optim.OPTIMIZERS: of optax.
                "optimizer_options": {},  # Its arguments that are no fields of this section.
            },
            "alphas": {
                "learning_rate": 1.5e-4,
                "b1": 0.5,
                "b2": 0.999,
                "weight_decay": 1e-3,
                "init_scale": 1e-3,
                "optimizer": "adam",
                "optimizer_options": {},
            },
            "train": {
                "batch_size": 32,
                "epochs": 2,
                "max_steps": -1,  # Stop after so many steps; -1: all epochs.
                "max_images": -1,  # Images of each half to learn from, drawn once; -1: all.
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
                "optimizer": "sgd",
                "optimizer_options": {},
            },
            "train": {
                "batch_size": 1024,
                "epochs": 250,
                "max_steps": -1,  # Stop after so many steps; -1: all epochs.
                "max_images": -1,  # Images to learn from, drawn once; -1: all.
                "seeds_together": -1,  # Seeds in one program; -1: one on CPUs, otherwise all.
                "initial": "",  # The workdir of a training whose weights it begins with, but heads.
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
            # What architectures are trained on; scores (synflow, naswot, ...) stand here, too.
            "tasks": ("classification", "rotation", "colorization", "jigsaw"),
            "scores": {
                "images": 64,  # That scores look at.
                "supernet": "",  # The workdir of a single-path search, whose weights cells share.
            },
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


def of_unit(
    config: ml_collections.ConfigDict, task: str, cell: str, score: bool = False
) -> ml_collections.ConfigDict:
    """The config of the trainings of one architecture on one task.

    Args:
      config: of a sample-based experiment.
      task: a name of `unnas_jax.tasks`, or of a score.
      cell: a text or name for `network.genotype`.
      score: whether it is a score, for which the config tells network, images and seeds.

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
    if not score:
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
