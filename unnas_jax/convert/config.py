"""YAML configs of the PyTorch release as configs here.

The release's files are nested keys over its own defaults. `load` gives the equivalent config, and a
line that lists keys of the file without equivalent. Values that would change what is computed and
that cannot be had here are refused.
"""

import ast
import contextlib
import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections
import yaml

from unnas_jax.config import schema as config_lib
from unnas_jax.core import reading
from unnas_jax.core.errors import UserError
from unnas_jax.data.registry import entry_of
from unnas_jax.spaces.darts import genotype as genotype_lib
from unnas_jax.spaces.darts import published
from unnas_jax.spaces.nasbench101 import spec as spec_lib
from unnas_jax.sweep import validation

TASKS = {
    "cls": "classification",
    "seg": "segmentation",
    "rot": "rotation",
    "col": "colorization",
    "jig": "jigsaw",
}
"""The release's names of the tasks."""

DATASETS = {
    "cifar10": "cifar10",
    "imagenet": "imagenet2012",
    "imagenet22k": "imagenet22k",
    "cityscapes": "cityscapes",
}
"""The release's names of the datasets."""

GENOTYPES = {"nasnet": "nas", "pnasnet": "pnas", "amoebanet": "amoeba"}
"""The release's names of published genotypes whose names here are others."""

CUSTOM = ("normal", "normal_concat", "reduce", "reduce_concat")
"""The entries of NAS.CUSTOM_GENOTYPE, in order."""

_MOST_LITERAL = 4096  # Characters of a list in a text.
_TOO_DEEP = (RecursionError, MemoryError)  # Of Python's parser.
# The release's own files have two thousand characters.
_MOST_TEXT, _MOST_VALUES = 2**14, 10_000

_FIXED_CLASSES = {"rot": 4, "col": 313}


class _Release:
    """The values of a file, with the release's defaults; remembers which keys were asked for."""

    def __init__(self, tree: Mapping[str, Any], name: str) -> None:
        self.name = name
        self.values: dict[str, Any] = {}
        self._flatten(tree, "")
        self.left = set(self.values)

    def _flatten(self, tree: Mapping[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                self._flatten(value, f"{prefix}{key}.")
            else:
                self.values[f"{prefix}{key}"] = value

    def fail(self, key: str, remedy: str) -> UserError:
        """The error for a wrong value of a key."""
        return UserError(f"{self.name}: {key}={reading.shown(self.values.get(key))}: {remedy}")

    def get(self, key: str, default: Any) -> Any:
        """The value of a key, of its default's type; a type as the default stands for none."""
        self.left.discard(key)
        kind = default if isinstance(default, type) else type(default)
        if key not in self.values:
            if isinstance(default, type):
                raise UserError(f"{self.name}: {key} is missing; give it")
            return default
        value = self.values[key]
        if isinstance(value, str) and kind is not str and len(value) <= _MOST_LITERAL:
            # YAML takes 3e-5 for a string, as it has no point; so do lists in parentheses.
            with contextlib.suppress(SyntaxError, ValueError, TypeError, *_TOO_DEEP):
                value = ast.literal_eval(value)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if kind is list and isinstance(value, tuple):
            value = list(value)
        if type(value) is not kind:
            raise self.fail(key, f"must be of type {kind.__name__}")
        return value

    def choose(self, key: str, default: Any, choices: Iterable[Any]) -> Any:
        """The value of a key that has a few possible ones."""
        value = self.get(key, default)
        if value not in choices:
            raise self.fail(key, f"use one of {', '.join(map(str, choices))}")
        return value

    def need(self, key: str, default: Any, value: Any, remedy: str) -> None:
        """Raises `UserError` unless a key has the only possible value."""
        if self.get(key, default) != value:
            if key not in self.values:
                raise UserError(f"{self.name}: {key} is {default!r} by default: {remedy}")
            raise self.fail(key, remedy)


def read(text: str, name: str) -> dict[str, Any]:
    """The tree of a YAML text; `name` is what it comes from.

    Raises:
      UserError: it is not YAML, or not a tree of keys.
    """
    try:
        if len(text) > _MOST_TEXT:
            raise ValueError(f"it has more than {_MOST_TEXT:,} characters")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _check_size(node, {})
        tree = loader.construct_document(node) if node else None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        words = reading.reason(error).split()
        raise UserError(f"{name}: not YAML of a config ({' '.join(words)})") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("MODEL"), dict):
        raise UserError(f"{name}: not a config of the PyTorch release: it has no section MODEL")
    return tree


def _check_size(node: Any, seen: dict[Any, int | None]) -> int:
    """The values of a tree with its aliases written out; `ValueError` if they are too many."""
    if node in seen:
        size = seen[node]
        if size is None:
            raise ValueError("an alias names what it is in")
        return size
    seen[node] = None
    children = node.value if isinstance(node, yaml.CollectionNode) else ()
    size = 1
    for child in children:
        for part in child if isinstance(child, tuple) else (child,):
            size += _check_size(part, seen)
    if size > _MOST_VALUES:
        raise ValueError(f"it has more than {_MOST_VALUES:,} values")
    seen[node] = size
    return size


def load(path: str) -> tuple[ml_collections.ConfigDict, list[str]]:
    """The config that a YAML file of the release means, and notes on what it leaves out.

    Raises:
      UserError: the file cannot be read, or asks for what cannot be had here.
    """
    try:
        text = reading.text(os.path.expanduser(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {reading.reason(error)}") from error
    return convert(read(text, path), path)


def convert(tree: Mapping[str, Any], name: str) -> tuple[ml_collections.ConfigDict, list[str]]:
    """The config that a tree of the release's keys means, and notes on what it leaves out.

    Args:
      tree: the nested keys.
      name: of the file, for messages.

    Returns:
      A valid config of a search or, for one architecture, of a training with one seed.

    Raises:
      UserError: names the key, its value and what is possible.
    """
    release = _Release(tree, name)
    kind = release.choose("MODEL.TYPE", str, ("nas_search", "nas", "nas_bench"))
    search = kind == "nas_search"
    config = config_lib.search() if search else config_lib.training()
    task = release.choose("TASK", "cls", TASKS)
    dataset = release.choose("TRAIN.DATASET", str, DATASETS)
    config.task.name, config.dataset.name = TASKS[task], DATASETS[dataset]
    if "RNG_SEED" in release.values:
        config.seed = release.get("RNG_SEED", int)
    _classes(release, config, task, dataset)
    _input(release, config, task, dataset)
    _weights(release, config, search)
    if search:
        _search(release, config)
    else:
        _training(release, config, task, dataset)
    config.network.stem = "cifar" if dataset == "cifar10" else "imagenet"
    if kind == "nas_bench":
        _nasbench101(release, config)
    else:
        _darts(release, config, search)
    validation.validate(config)
    left = sorted(release.left)
    return config, [f"without an equivalent here: {', '.join(left)}"] if left else []


def _classes(release: _Release, config: Any, task: str, dataset: str) -> None:
    """The task's answers: classes, input channels, loss, and the head's form."""
    classes = release.get("MODEL.NUM_CLASSES", int)
    if task == "jig":
        config.task.permutations = classes
        config.task.grid = release.get("JIGSAW_GRID", 3)
    else:
        release.left.discard("JIGSAW_GRID")
        expected = _FIXED_CLASSES.get(task, entry_of(DATASETS[dataset]).classes)
        if classes != expected:
            raise release.fail(
                "MODEL.NUM_CLASSES", f"the task {task!r} on {dataset!r} has {expected} classes"
            )
    channels = 1 if task == "col" else 3
    if release.get("MODEL.INPUT_CHANNELS", channels) != channels:
        raise release.fail("MODEL.INPUT_CHANNELS", f"the task {task!r} has {channels}")
    losses = ("cross_entropy", "label_smoothed_cross_entropy")
    smoothed = release.choose("MODEL.LOSS_FUN", losses[0], losses) == losses[1]
    config.task.label_smoothing = 0.0
    if smoothed and task != "cls":
        raise release.fail("MODEL.LOSS_FUN", "only classification smooths its labels")
    if smoothed:
        config.task.label_smoothing = release.get("MODEL.LABEL_SMOOTHING_EPS", float)
    release.left.discard("MODEL.LABEL_SMOOTHING_EPS")
    channels, rates = (
        release.get("MODEL.ASPP_CHANNELS", 256),
        release.get("MODEL.ASPP_RATES", [6, 12, 18]),
    )
    if task == "seg":
        config.task.update(aspp_channels=channels, aspp_rates=tuple(rates))


def _input(release: _Release, config: Any, task: str, dataset: str) -> None:
    """Crops and augmentation: in the release the dataset and the task decide."""
    crop = release.get("TRAIN.IM_SIZE", int)
    config.input.crop = crop
    config.input.resize = release.get("TEST.IM_SIZE", crop)
    config.input.gray = release.get("TRAIN.GRAY_PERCENTAGE", 0.0)
    if task != "jig" and config.input.gray:
        raise release.fail("TRAIN.GRAY_PERCENTAGE", "only the release's jigsaw turns images gray")
    if dataset == "cifar10":
        pad = 4 if task in ("cls", "rot") else 0
        config.input.update(train_crop="none", lighting=0.0, pad=pad)
        return
    crops = "random_resized"
    if dataset == "cityscapes":
        crops = "scale_random"
    elif task == "jig":
        crops = "resize_random"
    config.input.update(train_crop=crops, lighting=0.0 if task == "col" else 0.1, pad=0)
    config.input.update(habits(config.task.name, config.dataset.name))


def habits(task: str, dataset: str) -> dict[str, Any]:
    """The fields of `config.input` that feed a network as the release does, beyond the recipe.

    It lists the statistics of ImageNet and Cityscapes in the order BGR and applies them to RGB, as
    its swap of the channels mirrors the image instead; colorization has neither.

    Args:
      task, dataset: their names here.

    Returns:
      Values by field; none for CIFAR-10, and for datasets that the release has not.
    """
    if dataset == "cifar10" or dataset not in DATASETS.values():
        return {}
    if task == "colorization":
        return {"resampling": "bilinear_cut_off"}
    return {"resampling": "bilinear", "swapped_statistics": True, "mirrored": True}


def _weights(release: _Release, config: Any, search: bool) -> None:
    """The optimizer of the weights, its schedule, batches and BN."""
    weights, train = config.weights, config.train
    weights.learning_rate = release.get("OPTIM.BASE_LR", float)
    weights.final_learning_rate = 0.0
    weights.momentum = release.get("OPTIM.MOMENTUM", 0.9)
    weights.weight_decay = release.get("OPTIM.WEIGHT_DECAY", float)
    train.epochs = release.get("OPTIM.MAX_EPOCH", int)
    train.batch_size = release.get("TRAIN.BATCH_SIZE", int)
    config.eval.batch_size = release.get("TEST.BATCH_SIZE", train.batch_size)
    release.need("OPTIM.LR_POLICY", "cos", "cos", "only the cosine schedule 'cos' is possible")
    release.need("OPTIM.ITER_LR", False, False, "rates change once an epoch; use False")
    release.need("OPTIM.DAMPENING", 0.0, 0.0, "momentum is not dampened; use 0")
    release.need("BN.EPS", 1e-5, 1e-5, "batch norm has 1e-5")
    release.need("BN.MOM", 0.1, 0.1, "batch norm has 0.1")
    release.need("BN.USE_CUSTOM_WEIGHT_DECAY", False, False, "one weight decay serves all weights")
    release.left.discard("BN.CUSTOM_WEIGHT_DECAY")
    release.need("TRAIN.SPLIT", "train", "train", "use the split train")
    portion = 0.5 if search else 1.0
    remedy = "a search trains weights and alphas on halves" if search else "no part is left out"
    release.need("TRAIN.PORTION", 1.0, portion, f"{remedy}; use {portion:g}")


def _search(release: _Release, config: Any) -> None:
    """The fields of searches alone; half B is the held-out split."""
    release.left -= {"TEST.DATASET", "TEST.SPLIT"}
    release.need("OPTIM.NESTEROV", True, False, "the weights of a search have plain momentum")
    release.need("OPTIM.WARMUP_EPOCHS", 0, 0, "a search does not warm up; use 0")
    release.left.discard("OPTIM.WARMUP_FACTOR")
    config.search.arch_start_epoch = release.get("OPTIM.ARCH_EPOCH", 0.0)
    config.alphas.learning_rate = release.get("OPTIM.ARCH_BASE_LR", float)
    config.alphas.weight_decay = release.get("OPTIM.ARCH_WEIGHT_DECAY", float)
    release.need("OPTIM.ARCH_OPTIM", "adam", "adam", "alphas learn with adam")
    if release.get("TRAIN.EVAL_PERIOD", 1) != 1:
        release.left.add("TRAIN.EVAL_PERIOD")


def _training(release: _Release, config: Any, task: str, dataset: str) -> None:
    """The fields of trainings alone; a file of the release is one seed."""
    config.seeds = 1
    config.weights.nesterov = release.get("OPTIM.NESTEROV", True)
    config.weights.warmup_epochs = release.get("OPTIM.WARMUP_EPOCHS", 0)
    config.weights.warmup_factor = release.get("OPTIM.WARMUP_FACTOR", 0.1)
    precise = release.get("BN.USE_PRECISE_STATS", False)
    images = release.get("BN.NUM_SAMPLES_PRECISE", 1024)
    config.train.precise_bn_images = images if precise else 0
    config.eval.every_epochs = release.get("TRAIN.EVAL_PERIOD", 1)
    release.need("TEST.DATASET", dataset, dataset, "must be the dataset of TRAIN.DATASET")
    held_out = "test" if dataset == "cifar10" else "val"
    release.need("TEST.SPLIT", held_out, held_out, f"{dataset} is evaluated on {held_out!r}")
    if task == "seg":
        config.eval.crop = "whole"


def _darts(release: _Release, config: Any, search: bool) -> None:
    """Width, depth and, of a discrete network, cells, auxiliary head and drop path."""
    width, config.network.cells = release.get("NAS.WIDTH", 16), release.get("NAS.DEPTH", 20)
    if search:
        config.network.width = width
        return
    network = config.network
    network.width = str(width)
    auxiliary = release.get("NAS.AUX_WEIGHT", 0.4)
    network.auxiliary_weight = auxiliary if release.get("NAS.AUX", False) else 0.0
    network.drop_path = release.get("NAS.DROP_PROB", 0.0)
    name = release.get("NAS.GENOTYPE", str)
    if name == "custom":
        network.genotype = _custom_genotype(release)
        return
    release.left.discard("NAS.CUSTOM_GENOTYPE")
    ours = {theirs: ours for ours, theirs in genotype_names().items()}.get(name, name)
    if ours not in published.GENOTYPES:
        close = difflib.get_close_matches(ours, published.GENOTYPES, n=1)
        hint = f"did you mean {close[0]}?" if close else "use a published name or 'custom'"
        raise release.fail("NAS.GENOTYPE", f"no such genotype; {hint}")
    network.genotype = ours


def genotype_names() -> dict[str, str]:
    """The release's names of the published genotypes, by their names here."""

    def theirs(name: str) -> str:
        if name.startswith("unnas_"):
            return name.replace("in22k", "imagenet22k").replace("in1k", "imagenet")
        return GENOTYPES.get(name, name)

    return {name: theirs(name) for name in published.GENOTYPES}


def _custom_genotype(release: _Release) -> str:
    """`NAS.CUSTOM_GENOTYPE` as the text of a genotype."""
    key = "NAS.CUSTOM_GENOTYPE"
    value = release.get(key, list)
    if len(value) != len(CUSTOM):
        raise release.fail(key, f"give {', '.join(CUSTOM)}")
    try:
        return str(genotype_lib.from_dict(dict(zip(CUSTOM, value, strict=True))))
    except UserError as error:
        raise UserError(f"{release.name}: {key}: {error}") from error


def _nasbench101(release: _Release, config: Any) -> None:
    """The cell and the sizes of a NAS-Bench-101 network."""
    network = config.network
    network.space = "nasbench101"
    network.width = str(release.get("NAS.WIDTH", 16))
    network.stacks = release.get("NAS.NUM_STACKS", 3)
    network.modules = release.get("NAS.NUM_MODULES_PER_STACK", 3)
    network.auxiliary_weight = 0.0
    matrix, operations = release.get("NAS.MATRIX", list), release.get("NAS.OPS", list)
    value = {"space": "nasbench101", "matrix": matrix, "operations": operations}
    try:
        network.genotype = str(spec_lib.from_dict(value))
    except UserError as error:
        raise UserError(f"{release.name}: NAS.MATRIX, NAS.OPS: {error}") from error


def as_python(config: ml_collections.ConfigDict, source: str) -> str:
    """The text of a config file (`get_config()`) for a config; `source` is what it comes from."""
    experiment = config.experiment
    schema: Callable[[], Any] = config_lib.SCHEMAS[experiment]
    defaults = schema().to_dict()
    lines: list[str] = []

    def add(values: Mapping[str, Any], of: Mapping[str, Any], prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, Mapping):
                add(value, of[key], f"{prefix}.{key}")
            elif value != of[key]:
                lines.append(f"    {prefix}.{key} = {value!r}")

    add(config.to_dict(), defaults, "config")
    body = "\n".join(lines).replace("'", '"')
    return f'''"""The config of the PyTorch release's {source}."""

import ml_collections

from unnas_jax import config as config_lib


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = config_lib.{schema.__name__}()
{body}
    return config
'''
