"""Tests of every recipe: it is valid, its model builds at full size, and a reduced one learns.

The step runs with width 4, 3 cells of one node, 2 images and 10 dataset classes, on crops of 33
pixels behind the stem `imagenet` (48 for the jigsaw) and 16 behind the stem `cifar` (24). Tasks,
head, stem and augmentations are the recipe's own. Recipes that agree in these share one step.

Recipes of the evaluation phase take their step with width 4, 3 cells of one node, 2 images and 10
classes; their crops are the recipe's own where it has an auxiliary head, which needs them (224
pixels, 32 for CIFAR-10), and otherwise 33 pixels.
"""

import dataclasses
import functools
import importlib
import json
import pathlib
import re
from typing import Any

import jax
import ml_collections
import numpy as np
import pytest

from tests import conftest, tiny, tiny_training
from unnas_jax.analysis import next_step
from unnas_jax.config import schema as config_lib
from unnas_jax.config.sections import MethodConfig, Training
from unnas_jax.core import files, sharding
from unnas_jax.layers import counting
from unnas_jax.learning import trainer
from unnas_jax.methods.base import Setting
from unnas_jax.methods.darts import Darts
from unnas_jax.spaces import complexity, networks
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts import genotype as genotype_lib
from unnas_jax.spaces.darts.supernet import build_supernet, init_alphas
from unnas_jax.sweep import validation
from unnas_jax.tasks import registry
from unnas_jax.tasks.base import example_shapes

STEMS = sorted(
    path.stem
    for path in (conftest.ROOT / "configs").glob("*.py")
    if path.stem not in ("__init__", "common")
)
EVALUATIONS = [name for name in STEMS if name.startswith("eval_")]
SAMPLES = [name for name in STEMS if name.startswith("sample_")]
NAMES = [name for name in STEMS if name not in EVALUATIONS + SAMPLES]
BATCH = 2
OTHERS_STEPS = {"s2_cifar10", "s3_cifar10", "s4_cifar10", "rot_darts_nasbench201_cifar10"}
"""Recipes whose spaces take their steps in tests/methods, as those with options of methods do."""
GUESSED = {"masked": 1.5, "contrastive": np.log(2 * BATCH - 1), "regression": 5.0}
"""About the losses of networks that were not trained, where answers are no classes."""


# The network of skips alone and the kernels of 15 cells, whose batch norms have no parameters.
_MIXED = 73_306 + 5 * sum(6 * 10 * c * c for c in (16, 32, 64))

SUPERNETS = {
    "darts_nasbench201_cifar10": _MIXED,
    "gdas_nasbench201_cifar10": _MIXED,
    "rot_darts_nasbench201_cifar10": _MIXED - 6 * 65,
    # The network of skips alone, with a head of four classes, and the operations of 15 cells.
    "rsws_nasbench201_cifar10": 73_306
    - 6 * 65
    + 5 * sum(6 * (10 * c * c + 4 * c) for c in (16, 32, 64)),
    # That of DARTS with scales and biases: 8 batch norms an edge and 2 for a cell's inputs, in
    # cells of 320 channels together; and those of the skips on the 8 edges of stride 2.
    "rlnas_cifar10": 1_930_618 + 2 * 320 * (14 * 8 + 2) + 2 * 8 * (32 + 64),
}
"""The parameters of supernets that are not those of DARTS."""


def recipe(name: str) -> ml_collections.ConfigDict:
    config = importlib.import_module(f"configs.{name}").get_config()
    if config.experiment != "sample" and config.dataset.name.startswith("folder"):
        config.dataset.path = "images"
    return config


def as_key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@functools.cache
def full_size(key: str) -> tuple[int, tuple[int, ...]]:
    """The parameters of a recipe's supernet and its output's shape for one image."""
    config = json.loads(key)
    task = registry.create(config, complexity._facts(config, None))
    inputs = example_shapes(config, task).inputs
    network = build_supernet(config, task)

    def build(x: jax.Array) -> Any:
        nodes = config["network"]["nodes"]
        alphas = init_alphas(jax.random.key(0), nodes, 1e-3, network.operations)
        return network.init_with_output(jax.random.key(0), x, alphas, train=True)

    outputs, variables = jax.eval_shape(build, inputs)
    return counting.parameters(variables["params"]), jax.tree.leaves(outputs)[0].shape


@pytest.mark.parametrize("name", NAMES)
def test_valid_and_builds_at_full_size(name: str) -> None:
    config = recipe(name)
    validation.validate(config)
    c = config.to_dict()
    if c["method"] and name.startswith("rot_"):
        # But for its head the network of the recipe with labels.
        labelled = recipe(name.removeprefix("rot_")).to_dict()
        assert labelled["network"] == c["network"] and labelled["method"] == c["method"]
        return
    counts = complexity.of_config(c)
    if name in SUPERNETS:
        assert counts["parameters"] == SUPERNETS[name]
        return
    model = ("network", "task", "search", "precision", "seed")
    own = {**config_lib.search().to_dict(), **{section: c[section] for section in model}}
    labels = c["task"]["name"] in ("classification", "segmentation", "random_labels")
    dataset = {"name": c["dataset"]["name"] if labels else "tfds:x"}
    # Neither parameters nor the number of answers depend on the size of the images.
    crop = small_crop(c["task"]["name"], c["network"]["stem"])
    inputs = {**c["input"], "resize": 0, "train_crop": "", "lighting": 0.0, "gray": 0.0, "pad": 0}
    inputs["crop"] = crop
    own["search"] = {**c["search"], "arch_start_epoch": 0.0, "method": "darts"}
    own["dataset"] = {**own["dataset"], **dataset}
    parameters, outputs = full_size(as_key({**own, "input": inputs}))
    assert parameters == counts["parameters"]
    several = {"rotation": 4, "contrastive": 2}
    assert outputs[0] == several.get(c["task"]["name"], 1)
    assert counts["multiply_adds"] > 0


def small_crop(task: str, stem: str) -> int:
    """The pixels of a step's images."""
    cifar = stem == "cifar"
    if task == "masked":  # Of which patches cut all.
        return 16 if cifar else 32
    return (24 if cifar else 48) if task == "jigsaw" else (16 if cifar else 33)


def reduced(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """A recipe without what does not matter for a step's program, at the sizes named above."""
    config = ml_collections.ConfigDict(config.to_dict())
    operations = candidates.of_network(config.to_dict()["network"])
    config.network.update(width=4, cells=3, nodes=1)
    # With all operations of DARTS, which take long to compile, the paper's rotation takes its step.
    whole = config.task.name == "rotation" and config.network.stem == "imagenet"
    few = not whole and not config.network.operations
    first = {
        kind: [tiny.FEW] * 2 if few else names[:2]  # Of the first node.
        for kind, names in operations.items()
    }
    with config.ignore_type():
        config.network.operations = candidates.as_json(first)
    crop = small_crop(config.task.name, config.network.stem)
    config.input.update(crop=crop, resize=crop, train_crop="none")
    if config.task.name != "jigsaw":
        config.task.update(grid=3, permutations=1000)
    config.dataset.update(name="fake", path="")
    config.search.arch_start_epoch = 0.0
    for section, values in config_lib.search().items():
        if section in ("weights", "alphas", "train", "eval"):
            config[section] = values
    for key in ("log_every_steps", "checkpoint_every_steps"):
        config[key] = 1
    config.train.batch_size = BATCH
    return config.to_dict()


@dataclasses.dataclass(frozen=True)
class Fake:
    name: str = "fake"
    num_classes: int = 10
    mean: tuple[float, ...] = (0.5, 0.4, 0.3)
    std: tuple[float, ...] = (0.2, 0.3, 0.2)


def batch(task: Any, crop: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (BATCH, crop, crop) if task.label_maps else (BATCH,)
    numbers = {"record": np.arange(BATCH, dtype=np.int32)} if task.records else {}
    label = rng.integers(0, 10, labels)
    if task.label_maps:
        label[:, :5] = 255
    return {
        "image": rng.integers(0, 256, (BATCH, crop, crop, 3), np.uint8),
        "label": label.astype(np.uint8 if task.label_maps else np.int32),
        **numbers,
    }


def one_step(config: dict[str, Any]) -> dict[str, float]:
    """Takes an alpha step and a weight step and evaluates; returns what the test looks at."""
    task = registry.create(config, Fake())
    mesh = sharding.data_mesh(jax.devices()[:1])
    steps = Darts(Setting(MethodConfig.of(config), task, mesh, steps_per_epoch=10))
    crop = config["input"]["crop"]
    half_a, half_b = (sharding.to_devices(batch(task, crop, seed=seed), mesh) for seed in range(2))
    state = steps.init()
    before = jax.device_get((state.params, state.alphas))
    state, of_alphas = steps.alpha_step(state, half_b, half_a)
    state, of_weights = steps.weight_step(state, half_a)
    after = jax.device_get((state.params, state.alphas))
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, after)
    # The last batch of a split is padded: its second image does not count.
    masked = {**half_b, **sharding.to_devices({"mask": np.float32([1, 0])}, mesh)}
    held = jax.device_get(steps.evaluate(state, masked, 0))
    metrics = task.summarize([held])
    return {
        "alpha_loss": float(of_alphas["loss"] / of_alphas["count"]),
        "loss": float(of_weights["loss"] / of_weights["count"]),
        "count": float(of_weights["count"]),
        "masked_count": float(held["count"]),
        "guess": np.log(task.num_classes) if task.num_classes else GUESSED[task.name],
        "params_moved": float(np.mean(jax.tree.leaves(moved[0]))),
        "alphas_moved": float(all(moved[1].values())),
        "metric": metrics[task.metric],
    }


def groups() -> dict[str, str]:
    """The recipes whose reduced step is the same program, as `name+name+...`: that step's config.

    One test per group, not per recipe, so that tests in parallel compile no program twice. Methods
    with options take their steps in tests/methods, and so do some spaces.
    """
    names: dict[str, list[str]] = {}
    for name in NAMES:
        if recipe(name).method or name in OTHERS_STEPS:
            continue
        names.setdefault(as_key(reduced(recipe(name))), []).append(name)
    return {"+".join(members): key for key, members in names.items()}


@pytest.mark.parametrize(("names", "key"), groups().items(), ids=groups())
def test_one_step(names: str, key: str) -> None:
    config = json.loads(key)
    result = one_step(config)
    # Not trained: about the loss of guessing.
    for name in ("loss", "alpha_loss"):
        assert 0.3 < result[name] / result["guess"] < 3, names
    crop, task = config["input"]["crop"], config["task"]["name"]
    pixels = {"colorization": crop * crop, "segmentation": crop * (crop - 5), "rotation": 4}
    values = {**pixels, "contrastive": 2, "masked": hidden_values(config)}
    assert result["count"] == BATCH * values.get(task, 1)
    assert result["masked_count"] == result["count"] / BATCH
    assert result["alphas_moved"] == 1
    assert result["params_moved"] == 1
    assert 0 <= result["metric"] <= 1


def hidden_values(config: dict[str, Any]) -> int:
    """Of the masked task, where its patches divide the crop."""
    crop, section = config["input"]["crop"], config["task"]
    patches = (crop // section["mask_patch"]) ** 2
    return 3 * round(section["mask_ratio"] * patches) * section["mask_patch"] ** 2


TABLE = {
    # Classes, batch, weights' and alphas' rates, weight decay, crop, cells, epochs, warm-up.
    "cls_in1k": (1000, 64, 0.1, 3e-4, 3e-5, 224, 8, 2, 1.0),
    "rot_in1k": (4, 32, 0.05, 1.5e-4, 3e-5, 224, 8, 2, 1.0),
    "col_in1k": (313, 64, 0.1, 3e-4, 3e-5, 224, 8, 2, 1.0),
    "jig_in1k": (1000, 32, 0.05, 1.5e-4, 3e-5, 255, 8, 2, 1.0),
    "cls_in22k": (21841, 256, 0.4, 1.2e-3, 3e-5, 224, 8, 1, 0.0),
    "rot_in22k": (4, 128, 0.2, 6e-4, 3e-5, 224, 8, 1, 0.0),
    "col_in22k": (313, 256, 0.4, 1.2e-3, 3e-5, 224, 8, 1, 0.0),
    "jig_in22k": (1000, 128, 0.2, 6e-4, 3e-5, 255, 8, 1, 0.0),
    "seg_cityscapes": (19, 32, 0.1, 3e-4, 3e-4, 321, 12, 400, 0.0),
    "rot_cityscapes": (4, 16, 0.05, 1.5e-4, 3e-4, 321, 12, 400, 0.0),
    "col_cityscapes": (313, 16, 0.05, 1.5e-4, 3e-4, 321, 12, 400, 0.0),
    "jig_cityscapes": (1000, 32, 0.1, 3e-4, 3e-4, 321, 12, 400, 0.0),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_paper_s_recipes(name: str) -> None:
    c = recipe(name)
    task = registry.create(c.to_dict(), complexity._facts(c.to_dict(), None))
    assert (
        task.num_classes,
        c.train.batch_size,
        c.weights.learning_rate,
        c.alphas.learning_rate,
        c.weights.weight_decay,
        c.input.crop,
        c.network.cells,
        c.train.epochs,
        c.search.arch_start_epoch,
    ) == TABLE[name]
    task_name, dataset = name.split("_")
    assert c.input.gray == (0.3 if task_name == "jig" else 0.0)
    assert c.input.lighting == (0.0 if task_name == "col" else 0.1)
    if dataset == "cityscapes":
        assert (c.input.train_crop, c.input.resize) == ("scale_random", 512)
    else:
        kind = "resize_random" if task_name == "jig" else "random_resized"
        assert (c.input.train_crop, c.input.resize) == (kind, 256)
    assert (c.network.width, c.network.nodes, c.network.stem) == (16, 4, "imagenet")
    assert (c.weights.momentum, c.weights.clip_norm, c.weights.final_learning_rate) == (0.9, 5, 0)
    assert (c.alphas.b1, c.alphas.b2, c.alphas.weight_decay) == (0.5, 0.999, 1e-3)
    assert (c.task.aspp_channels, c.task.aspp_rates) == (64, (6,))
    assert task.single_reduction == (task_name == "seg")


@pytest.mark.parametrize("task", ["rot", "col", "jig", "cls"])
def test_cifar_is_padded_for_classification_and_rotation_only(task: str) -> None:
    c = recipe("darts_cifar10" if task == "cls" else f"{task}_cifar10").input
    assert (c.pad, c.train_crop, c.lighting) == (4 if task in ("cls", "rot") else 0, "none", 0.0)
    assert c.gray == (0.3 if task == "jig" else 0.0)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluations_are_valid_and_build_at_full_size(name: str) -> None:
    config = recipe(name)
    validation.validate(config)
    c = config.to_dict()
    task = registry.create(c, complexity._facts(c, None))
    inputs = example_shapes(c, task).inputs
    network = networks.build_network(c, task)
    (outputs, auxiliary), variables = jax.eval_shape(
        lambda x: network.init_with_output(jax.random.key(0), x, train=True), inputs
    )
    counts = complexity.of_config(c)
    assert counting.parameters(variables["params"]) == counts["parameters_with_auxiliary"]
    # Three halvings of the stem, one of the cells; the loss is taken after upsampling.
    dense = (-(-c["input"]["crop"] // 16),) * 2 if task.label_maps else ()
    assert outputs.shape == (1, *dense, task.num_classes)
    assert (auxiliary is not None) == (c["network"]["auxiliary_weight"] > 0)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_takes_one_step(name: str, tmp_path: pathlib.Path) -> None:
    cells = tmp_path / "genotype.json"
    schema = {"schema": genotype_lib.SCHEMA, "genotype": tiny_training.CELLS.as_dict()}
    files.write_json(cells, schema)
    config = recipe(name)
    config.network.update(genotype=str(cells), width="4", cells=3)
    config.task.aspp_channels = 4
    if not config.network.auxiliary_weight:
        config.input.update(crop=33, resize=33)
    c = config.to_dict()
    task, mesh = registry.create(c, Fake()), sharding.data_mesh(jax.devices()[:1])
    inputs = example_shapes(c, task).inputs
    steps = trainer.build_steps(
        Training.of(c), networks.build_network(c, task), task, mesh, 10, inputs
    )
    images = batch(task, c["input"]["crop"], seed=0)
    state = steps.init([0])
    before = jax.device_get(state.params)
    state, sums = steps.train(state, trainer.stack_seeds([images], mesh))
    assert 0.3 < float(sums["loss"][0] / sums["count"][0]) / np.log(task.num_classes) < 3
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, jax.device_get(state.params))
    assert all(jax.tree.leaves(moved))
    evaluated = jax.device_get(steps.evaluate(state, sharding.to_devices(images, mesh), 0))
    metrics = task.summarize([{key: value[0] for key, value in evaluated.items()}])
    assert 0 <= metrics[task.metric] <= 1


SAMPLE_TABLE = {
    # Width, cells or modules a stack, epochs, seeds, weight decay, images for BN statistics; batch
    # and rate of cls and col, batch and rate of rot and jig.
    "sample_darts_cifar10": ("16", 20, 100, 3, 5e-4, 1024, 128, 0.1, 32, 0.025),
    "sample_darts_in1k": ("32", 22, 5, 1, 5e-5, 1024, 32, 0.0125, 32, 0.0125),
    "sample_nasbench101_cifar10": ("128", 3, 100, 3, 5e-4, 1024, 128, 0.1, 32, 0.025),
    "sample_nasbench101_in1k": ("128", 4, 10, 1, 5e-5, 0, 32, 0.0125, 32, 0.0125),
}


@pytest.mark.parametrize("name", SAMPLE_TABLE)
def test_the_paper_s_samples(name: str) -> None:
    config = recipe(name)
    validation.validate(config)
    cifar, space = name.endswith("cifar10"), name.split("_")[1]
    assert (config.sample.count, tuple(config.sample.parameters)) == (500, (685_000, 906_000))
    for task in ("classification", "rotation", "colorization", "jigsaw"):
        c = config_lib.of_unit(config, task, CELL_OF[space])
        several = task in ("rotation", "jigsaw")
        depth = c.network.cells if space == "darts" else c.network.modules
        shared = (c.network.width, depth, c.train.epochs, c.seeds, c.weights.weight_decay)
        rates = (c.train.batch_size, c.weights.learning_rate)
        row = SAMPLE_TABLE[name]
        assert (*shared, c.train.precise_bn_images) == row[:6]
        assert rates == (row[8:] if several else row[6:8])
        assert (c.network.space, c.task.name) == (space, task)
        assert c.input.gray == (0.3 if task == "jigsaw" else 0.0)
        assert c.input.lighting == (0.0 if cifar or task == "colorization" else 0.1)
        assert c.input.pad == (4 if cifar and task in ("classification", "rotation") else 0)
        side = 32 if cifar else 255 if task == "jigsaw" else 224
        assert (c.input.crop, c.network.stem) == (side, "cifar" if cifar else "imagenet")
        puzzle = (2, 24) if cifar else (3, 1000)
        assert (c.task.grid, c.task.permutations) == puzzle
        assert (c.weights.momentum, c.weights.nesterov, c.weights.warmup_epochs) == (0.9, True, 0)
        assert (c.weights.final_learning_rate, c.weights.clip_norm) == (0, 0)
        assert (c.task.label_smoothing, c.network.auxiliary_weight) == (0, 0)


CELL_OF = {
    "darts": "dil_conv_3x3:0,none:1+max_pool_3x3:0,skip_connect:1",
    "nasbench101": "0110-0001-0001-0000:conv3x3,maxpool3x3",
    "nasbench201": (
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_build_at_full_size(name: str) -> None:
    """With small cells: the networks of all cells are counted without being built."""
    config = recipe(name)
    validation.validate(config)
    c = config_lib.of_unit(config, "classification", CELL_OF[name.split("_")[1]]).to_dict()
    task = registry.create(c, complexity._facts(c, None))
    inputs = example_shapes(c, task).inputs
    network = networks.build_network(c, task)
    (outputs, _), variables = jax.eval_shape(
        lambda x: network.init_with_output(jax.random.key(0), x, train=True), inputs
    )
    assert outputs.shape == (1, task.num_classes)
    counts = complexity.of_config(c)
    assert counting.parameters(variables["params"]) == counts["parameters"]


# Each recipe takes its step with one task: both spaces have both stems.
STEP_OF = {
    "sample_darts_cifar10": "jigsaw",
    "sample_darts_in1k": "rotation",
    "sample_darts_photos": "rotation",
    "sample_nasbench101_cifar10": "rotation",
    "sample_nasbench101_in1k": "colorization",
    "sample_nasbench101_photos": "colorization",
    "sample_nasbench201_cifar10": "rotation",
    "sample_nasbench201_photos": "colorization",
    "sample_nasbench201_digits": "colorization",  # The program of the one before.
}


@functools.cache
def sample_step(key: str) -> tuple[float, float]:
    """A step's loss, by that of guessing, and the share of parameters that it moved."""
    c = json.loads(key)
    task, mesh = registry.create(c, Fake()), sharding.data_mesh(jax.devices()[:1])
    inputs = example_shapes(c, task).inputs
    steps = trainer.build_steps(
        Training.of(c), networks.build_network(c, task), task, mesh, 10, inputs
    )
    state = steps.init([0])
    before = jax.device_get(state.params)
    images = trainer.stack_seeds([batch(task, c["input"]["crop"], seed=0)], mesh)
    state, sums = steps.train(state, images)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, jax.device_get(state.params))
    loss = float(sums["loss"][0] / sums["count"][0])
    return loss / np.log(task.num_classes), float(np.mean(jax.tree.leaves(moved)))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_s_network_takes_one_step(name: str) -> None:
    """Width 4, 3 cells or 2 stacks of one module, crops of 16 to 33 pixels.

    Recipes that then are the same program share one step.
    """
    config = config_lib.of_unit(recipe(name), STEP_OF[name], CELL_OF[name.split("_")[1]])
    config.network.update(width="4", cells=3, stacks=2, modules=1)
    crop = 24 if config.task.name == "jigsaw" else 16 if config.network.stem == "cifar" else 33
    config.input.update(crop=crop, resize=crop, train_crop="none")
    config.task.update(grid=2, permutations=24)
    config.dataset.update(name="fake", path="")
    for section in ("weights", "train", "eval"):
        config[section] = config_lib.training()[section]
    config.update(seeds=1, log_every_steps=1)
    loss, moved = sample_step(as_key(config.to_dict()))
    assert 0.3 < loss < 3 and moved > 0.9


@pytest.mark.parametrize("name", STEMS)
def test_the_docstring_gives_the_command(name: str) -> None:
    source = pathlib.Path(conftest.ROOT, "configs", f"{name}.py").read_text()
    docstring = source.split('"""')[1]
    assert f"--config=configs/{name}.py" in docstring
    assert len(docstring.splitlines()) >= 4


def test_every_recipe_that_is_named_exists() -> None:
    """In messages, in reports, in the help of commands and in what one reads."""
    named: dict[str, str] = {}
    for folder in ("unnas_jax", "docs", "launch", "configs", "benchmarks", "."):
        pattern = "*.md" if folder == "." else "**/*.*"
        for file in (conftest.ROOT / folder).glob(pattern):
            if file.suffix in (".py", ".md", ".sh", ".sbatch"):
                text = file.read_text(encoding="utf-8")
                # Capitals stand for any: configs/NAME.py; `mine` is one that a user writes.
                named |= dict.fromkeys(re.findall(r"configs/([a-z]\w*)\.py", text), str(file))
    missing = {n: f for n, f in named.items() if n not in (*STEMS, "common", "mine")}
    assert not missing
    assert len(named) > 10
    assert {recipe for recipe, _ in next_step.EVALUATIONS.values()} | {"eval_folder"} == {
        *EVALUATIONS
    }
