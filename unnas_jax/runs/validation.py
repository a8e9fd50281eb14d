"""Checks the config of a search or a training before a run: keys, types, values."""

import math
import operator
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import ml_collections

from unnas_jax.config import schema, unknown_keys
from unnas_jax.config.options import Section
from unnas_jax.config.schema import SearchConfig, TrainConfig
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core.errors import UserError
from unnas_jax.core.registry import nearest
from unnas_jax.data import crops
from unnas_jax.data import registry as datasets
from unnas_jax.layers.blocks import STEMS
from unnas_jax.learning import optim, trackers
from unnas_jax.methods import registry as methods
from unnas_jax.spaces import mixed
from unnas_jax.spaces import registry as spaces
from unnas_jax.spaces.darts import supernet
from unnas_jax.tasks import registry as tasks


def check(condition: bool, key: str, value: Any, remedy: str) -> None:
    """Raises `UserError` for a value of a config, unless a condition holds."""
    if not condition:
        raise UserError(f"config.{key}={value!r}: {remedy}")


def check_keys(
    config: Mapping[str, Any],
    fields: Mapping[str, Any],
    prefix: str = "",
    whole: Mapping[str, Any] | None = None,
) -> None:
    """Raises `UserError` unless a section has the keys of its defaults, with values of their types.

    Args:
      config: the section.
      fields: its keys with their defaults.
      prefix: of the section's keys, as in `network.`.
      whole: the defaults of the whole config; None: `fields`.
    """
    whole = fields if whole is None else whole
    for key in config:
        if key not in fields:
            error = unknown_keys.error_of(f"{prefix}{key}", whole, schema.SCHEMAS)
            assert error is not None
            raise error
    for key, default in fields.items():
        if key not in config:
            raise UserError(f"config.{prefix}{key}: missing; its default is {default!r}")
        value = config[key]
        if isinstance(default, Mapping):
            check(isinstance(value, Mapping), prefix + key, value, "give the keys of a section")
            if not default:
                continue  # The method or the optimizer checks its keys.
            check_keys(value, default, f"{prefix}{key}.", whole)
            continue
        if prefix + key == "network.operations" and isinstance(value, Mapping):
            continue  # By kind of cell.
        number = isinstance(default, float) and isinstance(value, int)
        same = type(value) is type(default) or number
        check(same, prefix + key, value, f"must be of type {type(default).__name__}")
        if isinstance(value, float):
            check(math.isfinite(value), prefix + key, value, "must be finite")


def check_numbers(config: Section, keys: str, minimum: float, strict: bool) -> None:
    """Checks that fields, given as `section.key` words, are at least or greater than a minimum."""
    words = "greater than" if strict else "at least"
    for key in keys.split():
        value = operator.attrgetter(key)(config)
        good = value > minimum if strict else value >= minimum
        check(good, key, value, f"must be {words} {minimum:g}")


def check_shares(config: Section, keys: str) -> None:
    """Checks that fields, given as `section.key` words, are at least 0 and less than 1."""
    for key in keys.split():
        value = operator.attrgetter(key)(config)
        check(0 <= value < 1, key, value, "must be in [0, 1)")


def check_choice(key: str, value: Any, choices: Iterable[str]) -> None:
    """Raises `UserError` for a value of a config that is none of some."""
    known = sorted(choices)
    check(value in known, key, value, f"{nearest(str(value), known)}use one of {', '.join(known)}")


def validate(config: ml_collections.ConfigDict, objects: Collection[str] = ()) -> None:
    """Refuses unknown keys, wrong types and impossible values before anything is built.

    Args:
      config: of a search or a training.
      objects: the sections whose optimizers the run gets as objects.

    Raises:
      UserError: names the key, its value and what to use instead.
    """
    given = config.to_dict()
    experiment = given.get("experiment")
    check_choice("experiment", experiment, ("search", "train"))
    check_keys(given, schema.SCHEMAS[str(experiment)]().to_dict())
    c = schema.record(given)

    check_numbers(c, "train.batch_size eval.batch_size train.epochs input.crop", 1, strict=False)
    check_numbers(c, "log_every_steps checkpoint_every_steps", 1, strict=False)
    check_numbers(c, "weights.learning_rate", 0, strict=True)
    check_numbers(c, "seed input.lighting input.pad input.gray", 0, strict=False)
    check_numbers(c, "weights.final_learning_rate weights.weight_decay", 0, strict=False)
    check_choice("task.name", c.task.name, tasks.TASKS)
    tasks.validate(c)
    check_choice("network.stem", c.network.stem, STEMS)
    check_choice("precision", c.precision, ("auto", "float32", "bfloat16"))
    check_choice("input.train_crop", c.input.train_crop, crops.TRAIN_CROPS)
    check_choice("input.resampling", c.input.resampling, crops.RESAMPLINGS)
    check_shares(c, "weights.momentum task.label_smoothing")
    cells = c.network.cells
    check(cells >= 3, "network.cells", cells, "use at least 3, for cells of both kinds")
    check(c.input.gray <= 1, "input.gray", c.input.gray, "is a share from 0 to 1")
    cutout, task = c.input.cutout, tasks.of_config(c)
    check(0 <= cutout <= c.input.crop, "input.cutout", cutout, "is a side within the crop")
    remedy = f"{task.name} would have to tell the colours of what was cut out; use 0"
    check(not (cutout and task.colours), "input.cutout", cutout, remedy)
    crop, resize = c.input.crop, c.input.resize
    check(crop <= resize, "input.crop", crop, f"is larger than input.resize={resize}")
    steps, images = c.train.max_steps, c.eval.max_images
    few = c.train.max_images
    check(few == -1 or few > 0, "train.max_images", few, "use -1 (all) or at least 1")
    check(steps == -1 or steps > 0, "train.max_steps", steps, "use -1 (all epochs) or at least 1")
    check(images == -1 or images > 0, "eval.max_images", images, "use -1 (all) or at least 1")
    trackers.check(c.trackers)
    check(c.workers >= -1, "workers", c.workers, "use -1 (by cores), 0 (threads) or more")
    check_numbers(c, "dataset.max_pixels", 1, strict=False)
    ignored = c.dataset.ignore_label
    check(0 <= ignored <= 255, "dataset.ignore_label", ignored, "use a number from 0 to 255")
    datasets.check(c.dataset)
    _validate_search(c) if isinstance(c, SearchConfig) else _validate_training(c)
    optim.validate("weights", c.weights, given="weights" in objects)
    if isinstance(c, SearchConfig):
        optim.validate("alphas", c.alphas, given="alphas" in objects)
        methods.validate(MethodConfig.of(c))


def _validate_search(c: SearchConfig) -> None:
    check_numbers(c, "network.width network.nodes", 1, strict=False)
    check_numbers(c, "weights.clip_norm alphas.learning_rate alphas.init_scale", 0, strict=True)
    check_numbers(c, "alphas.weight_decay search.arch_start_epoch", 0, strict=False)
    width = c.network.width
    check(width % 2 == 0, "network.width", width, "must be even: reductions halve it")
    check_choice("search.rematerialise", c.search.rematerialise, schema.REMATERIALISE)
    check_choice("search.formulation", c.search.formulation, supernet.FORMULATIONS)
    if c.network.space in mixed.SUPERNETS:
        mixed.of_config(c).validate(c)
    check_shares(c, "alphas.b1 alphas.b2")


def _validate_training(c: TrainConfig) -> None:
    check_choice("mode", c.mode, ("train", "eval"))
    check_numbers(c, "seeds eval.every_epochs network.stacks network.modules", 1, strict=False)
    check_numbers(c, "weights.clip_norm weights.warmup_epochs", 0, strict=False)
    check_numbers(c, "network.auxiliary_weight train.precise_bn_images", 0, strict=False)
    width = c.network.width
    even = width.isdecimal() and int(width) >= 2 and int(width) % 2 == 0
    check(width == "fit" or even, "network.width", width, "use an even number, or 'fit'")
    check_shares(c, "network.drop_path train.ema weights.warmup_factor")
    together = c.train.seeds_together
    remedy = "use -1 (by the backend) or at least 1"
    check(together == -1 or together > 0, "train.seeds_together", together, remedy)
    check_choice("eval.crop", c.eval.crop, crops.EVAL_CROPS)
    task = tasks.of_config(c)
    remedy = f"{task.name} is evaluated on squares; use 'centre'"
    check(c.eval.crop == "centre" or task.whole_images, "eval.crop", "whole", remedy)
    check_choice("network.space", c.network.space, spaces.SPACES)
    spaces.of_section(c.network).validate(c.network)
