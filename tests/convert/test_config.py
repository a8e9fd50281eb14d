"""The release's YAML: what it means here, what is listed, what is refused."""

import copy
import dataclasses
import importlib

import cv2
import jax
import numpy as np
import pytest
import yaml

from tests.convert import yaml_files
from unnas_jax.commands import command_line, show
from unnas_jax.commands import convert as command
from unnas_jax.config import schema as config_lib
from unnas_jax.config.sections import Batches, Input
from unnas_jax.convert import config as release
from unnas_jax.convert import config_to_release
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.data import crops
from unnas_jax.data.records import Dataset
from unnas_jax.learning.feed import Feed
from unnas_jax.spaces import complexity
from unnas_jax.spaces.darts import published
from unnas_jax.tasks import registry as tasks
from unnas_jax.tasks.transforms import Augmentation

SEARCH = {
    "MODEL": {"TYPE": "nas_search", "NUM_CLASSES": 1000},
    "NAS": {"WIDTH": 16, "DEPTH": 8},
    "OPTIM": {
        "BASE_LR": 0.1, "LR_POLICY": "cos", "MAX_EPOCH": 2, "MOMENTUM": 0.9, "NESTEROV": False,
        "WEIGHT_DECAY": 3e-5, "ITER_LR": False, "ARCH_BASE_LR": 3e-4, "ARCH_WEIGHT_DECAY": 1e-3,
        "ARCH_EPOCH": 1.0,
    },
    "TRAIN": {
        "DATASET": "imagenet", "SPLIT": "train", "BATCH_SIZE": 64, "IM_SIZE": 224, "PORTION": 0.5,
        "EVAL_PERIOD": 1,
    },
    "TEST": {"BATCH_SIZE": 256, "IM_SIZE": 256},
}  # fmt: skip

EVALUATION = {
    "MODEL": {
        "TYPE": "nas", "NUM_CLASSES": 1000, "LOSS_FUN": "label_smoothed_cross_entropy",
        "LABEL_SMOOTHING_EPS": 0.1,
    },
    "NAS": {
        "GENOTYPE": "unnas_imagenet_rot", "WIDTH": 42, "DEPTH": 14, "AUX": True, "DROP_PROB": 0.0,
    },
    "OPTIM": {
        "BASE_LR": 0.5, "LR_POLICY": "cos", "MAX_EPOCH": 250, "MOMENTUM": 0.9, "NESTEROV": True,
        "WEIGHT_DECAY": 3e-5, "WARMUP_EPOCHS": 5,
    },
    "TRAIN": {"DATASET": "imagenet", "SPLIT": "train", "BATCH_SIZE": 1024, "IM_SIZE": 224},
    "TEST": {"DATASET": "imagenet", "SPLIT": "val", "BATCH_SIZE": 1000, "IM_SIZE": 256},
}  # fmt: skip

SEGMENTATION = {
    "MODEL": {"TYPE": "nas", "NUM_CLASSES": 19},
    "NAS": {"GENOTYPE": "darts_v2", "WIDTH": 82, "DEPTH": 12, "AUX": False},
    "OPTIM": {"BASE_LR": 0.1, "MAX_EPOCH": 2700, "WEIGHT_DECAY": 1e-4},
    "TRAIN": {
        "DATASET": "cityscapes", "BATCH_SIZE": 64, "IM_SIZE": 769, "EVAL_PERIOD": 1,
    },
    "TEST": {"DATASET": "cityscapes", "SPLIT": "val", "BATCH_SIZE": 8, "IM_SIZE": 1024},
    "TASK": "seg",
}  # fmt: skip

SAMPLE = {
    "MODEL": {"TYPE": "nas", "NUM_CLASSES": 24},
    "NAS": {
        "GENOTYPE": "custom", "WIDTH": 16, "DEPTH": 20,
        "CUSTOM_GENOTYPE": [
            [["none", 0], ["sep_conv_3x3", 1], ["dil_conv_5x5", 2], ["skip_connect", 0]], [2, 3],
            [["max_pool_3x3", 0], ["none", 1], ["avg_pool_3x3", 1], ["none", 1]], [3],
        ],
    },
    "BN": {"USE_PRECISE_STATS": True, "NUM_SAMPLES_PRECISE": 1024},
    "OPTIM": {"BASE_LR": 0.025, "MAX_EPOCH": 100, "WEIGHT_DECAY": 5e-4},
    "TRAIN": {"DATASET": "cifar10", "BATCH_SIZE": 32, "IM_SIZE": 32, "GRAY_PERCENTAGE": 0.3},
    "TEST": {"DATASET": "cifar10", "SPLIT": "test", "BATCH_SIZE": 50, "IM_SIZE": 32},
    "TASK": "jig",
    "JIGSAW_GRID": 2,
}  # fmt: skip

BENCHMARK = {
    "MODEL": {"TYPE": "nas_bench", "NUM_CLASSES": 313, "INPUT_CHANNELS": 1},
    "NAS": {
        "MATRIX": [[0, 1, 1], [0, 0, 1], [0, 0, 0]], "OPS": ["input", "conv3x3-bn-relu", "output"],
        "NUM_STACKS": 3, "NUM_MODULES_PER_STACK": 4, "WIDTH": 128,
    },
    "OPTIM": {"BASE_LR": 0.0125, "MAX_EPOCH": 10, "WEIGHT_DECAY": 5e-5},
    "TRAIN": {"DATASET": "imagenet", "BATCH_SIZE": 32, "IM_SIZE": 224},
    "TEST": {"DATASET": "imagenet", "SPLIT": "val", "BATCH_SIZE": 25, "IM_SIZE": 256},
    "TASK": "col",
}  # fmt: skip


def changed(tree, **values):
    """A copy with other values: `OPTIM__BASE_LR=...`; None takes the key away."""
    tree = copy.deepcopy(tree)
    for path, value in values.items():
        *sections, key = path.split("__")
        section = tree
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value
        if value is None:
            del section[key]
    return tree


def convert(tree):
    """Through the text of a file."""
    return release.convert(release.read(yaml.safe_dump(tree), "F"), "F")


def recipe(name, *arguments):
    return importlib.import_module(f"configs.{name}").get_config(*arguments).to_dict()


# How many images an evaluation takes at once, and of how many it reports, changes nothing else.
REPORT_ONLY = ("eval.batch_size: ", "eval.max_images: ")


def differences(tree, recipe):
    """What a recipe has otherwise than a file; no file has notes.

    Recipes here do without three habits of the release (docs/differences.md): it interpolates
    at every scale, and mirrors images and swaps the statistics of red and blue, but for CIFAR-10
    and colorization. For colorization it also cuts values off.
    """
    config, notes = convert(tree)
    assert notes == []
    name, dataset = config.task.name, config.dataset.name
    habits = {}
    if name == "colorization" and dataset != "cifar10":
        habits = {"resampling": "bilinear_cut_off"}
    elif dataset != "cifar10":
        habits = {"resampling": "bilinear", "mirrored": True, "swapped_statistics": True}
    expected = {**recipe, "input": {**recipe["input"], **habits}}
    lines = config_lib.difference(config.to_dict(), expected)
    return [line for line in lines if not line.startswith(REPORT_ONLY)]


@pytest.mark.parametrize("name", yaml_files.SEARCHES)
def test_searches_are_the_recipes_here(name):
    dataset, task = name.split("/")
    short = {"imagenet": "in1k", "imagenet22k": "in22k"}.get(dataset, dataset)
    expected = recipe("darts_cifar10" if name == "cifar10/cls" else f"{task}_{short}")
    found = differences(yaml_files.search(name), expected)
    if dataset != "cifar10":
        assert found == []
        return
    # DARTS' last rate, which the release's schedule has not.
    (line,) = found
    assert line.startswith("weights.final_learning_rate: 0.0 -> 0.00")


@pytest.mark.parametrize("task", ["cls", "rot", "col", "jig"])
@pytest.mark.parametrize("group", yaml_files.SAMPLES)
def test_samples_are_the_recipes_here(group, task):
    space, dataset = group.split("/")
    name = {"nas_bench": "nasbench101"}.get(space, space)
    module = f"configs.sample_{name}_{'cifar10' if dataset == 'cifar10' else 'in1k'}"
    tree = yaml_files.sample(group, task)
    cell = convert(tree)[0].network.genotype
    whole = importlib.import_module(module).get_config()
    expected = config_lib.of_unit(whole, release.TASKS[task], cell).to_dict()
    expected["seeds"] = 1  # A file of the release is one.
    without_effect = ["task.grid: ", "task.permutations: "] if task != "jig" else []
    without_effect += ["network.cells: "] if name != "darts" else []
    found = differences(tree, expected)
    assert [line for line in found if not line.startswith(tuple(without_effect))] == []


def test_evaluations_are_the_recipes_here():
    for tree, expected, listed in (
        (EVALUATION, recipe("eval_in1k", "unnas_in1k_rot"), []),
        # Whole images take long; docs/differences.md.
        (
            SEGMENTATION,
            recipe("eval_cityscapes", "darts_v2"),
            ["eval.every_epochs: 1 -> 100"],
        ),
    ):
        expected["seeds"] = 1  # A file of the release is one.
        assert differences(tree, expected) == listed


@pytest.mark.parametrize("train", [False, True])
def test_segmentation_is_fed_as_the_release_feeds_it(train):
    """Mirrored without its label map, normalised by swapped statistics, and then padded.

    Against the release's preparation of an image, written anew; in training without its lighting,
    and up to the flip of image and map.
    """
    config, _ = convert(SEGMENTATION)
    config.eval.update(batch_size=1, whole_size=(13, 15))
    config.train.batch_size = 1
    config.input.update(crop=12, resize=12, lighting=0.0, train_crop="centre")
    config.workers = 0
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 14, 3), np.uint8)
    classes = rng.integers(0, 19, (12, 14), np.uint8)
    png = [cv2.imencode(".png", x)[1].tobytes() for x in (image[..., ::-1], classes)]
    records = [{"image": png[0], "label": crops.LabelMap(png[1])}]
    dataset = Dataset("streets", {"train": records}, 19, ("class",) * 19, label_maps=True)
    task, mesh = tasks.create(config.to_dict(), dataset), sharding.data_mesh(jax.devices()[:1])
    feed = Feed(Batches.of(config.to_dict()), dataset, task, mesh)
    if train:
        with feed.train(records, np.arange(1), seed=0, start_step=0) as batches:
            batch = next(batches)
        image, classes, padding = image[:, 1:13], classes[:, 1:13], ((0, 0), (0, 0))
    else:
        (batch,) = feed.evaluation(records, np.arange(1))
        padding = ((0, 1), (0, 1))
    examples = task.examples(jax.random.key(1), batch, train=train)

    mean, deviation = np.array([0.406, 0.456, 0.485]), np.array([0.225, 0.224, 0.229])
    found = []
    for flip in (1, -1):
        x = (image[:, ::flip][:, ::-1] / 255 - mean) / deviation
        x = np.pad(x, (*padding, (0, 0)))
        y = np.pad(classes[:, ::flip], padding, constant_values=255)
        # Padding is a colour of whole levels here: zero up to half of one.
        same = np.allclose(examples.inputs[0], x, atol=0.5 / 255 / 0.224 + 1e-6)
        found.append(same and np.array_equal(examples.targets[0], y))
    assert sum(found) == 1 and (train or found[0])


def test_the_release_normalises_red_as_blue():
    dataset = dataclasses.make_dataclass("Facts", ["mean", "std"])((0.1, 0.2, 0.3), (1, 2, 4))
    for tree, mean, std in (
        (EVALUATION, (0.3, 0.2, 0.1), (4, 2, 1)),
        (SAMPLE, dataset.mean, dataset.std),
    ):
        config, _ = convert(tree)
        found = Augmentation.create(Input.of(config.input.to_dict()), dataset)
        assert (found.mean, found.std) == (mean, std)


def test_a_sampled_architecture():
    config, _ = convert(SAMPLE)
    assert config.task.name == "jigsaw"
    assert (config.task.grid, config.task.permutations) == (2, 24)
    assert config.network.genotype == (
        "none:0,sep_conv_3x3:1,dil_conv_5x5:2,skip_connect:0"
        "+max_pool_3x3:0,none:1,avg_pool_3x3:1,none:1@3"
    )
    assert (config.network.width, config.network.cells, config.network.stem) == ("16", 20, "cifar")
    assert config.train.precise_bn_images == 1024
    assert config.input.gray == 0.3
    assert (config.weights.momentum, config.weights.nesterov) == (0.9, True)
    assert config.network.auxiliary_weight == config.weights.warmup_epochs == 0


def test_a_cell_of_the_benchmark():
    config, _ = convert(BENCHMARK)
    assert config.task.name == "colorization"
    assert config.network.space == "nasbench101"
    assert config.network.genotype == "011-001-000:conv3x3"
    assert (config.network.width, config.network.stacks, config.network.modules) == ("128", 3, 4)
    assert config.train.precise_bn_images == 0


@pytest.mark.parametrize(
    "theirs, ours",
    [("nas", "nasnet"), ("darts_v1", "darts_v1"), ("unnas_imagenet22k_col", "unnas_in22k_col"),
     ("unnas_imagenet_jig", "unnas_in1k_jig"), ("unnas_cityscapes_seg", "unnas_cityscapes_seg")],
)  # fmt: skip
def test_published_names(theirs, ours):
    config, _ = convert(changed(EVALUATION, NAS__GENOTYPE=theirs))
    assert config.network.genotype == ours
    assert ours in published.GENOTYPES


def test_what_has_no_equivalent_is_listed():
    tree = changed(
        SEARCH, NUM_GPUS=4, OUT_DIR=".", CUDNN__BENCHMARK=True, NAS__ODD=1, TRAIN__EVAL_PERIOD=2
    )
    _, notes = convert(tree)
    keys = "CUDNN.BENCHMARK, NAS.ODD, NUM_GPUS, OUT_DIR, TRAIN.EVAL_PERIOD"
    assert notes == [f"without an equivalent here: {keys}"]


@pytest.mark.parametrize(
    "tree, changes, words",
    [
        (SEARCH, {"MODEL__TYPE": "resnet"}, "MODEL.TYPE='resnet'"),
        (SEARCH, {"MODEL__TYPE": None}, "MODEL.TYPE is missing"),
        (SEARCH, {"TASK": "depth"}, "TASK='depth'"),
        (SEARCH, {"TRAIN__DATASET": "coco"}, "TRAIN.DATASET='coco'"),
        (SEARCH, {"OPTIM__LR_POLICY": "steps"}, "OPTIM.LR_POLICY='steps'"),
        (SEARCH, {"OPTIM__NESTEROV": None}, "OPTIM.NESTEROV is True by default"),
        (SEARCH, {"OPTIM__ITER_LR": True}, "OPTIM.ITER_LR=True"),
        (SEARCH, {"OPTIM__ARCH_OPTIM": "sgd"}, "OPTIM.ARCH_OPTIM='sgd'"),
        (SEARCH, {"OPTIM__BASE_LR": "fast"}, "OPTIM.BASE_LR='fast': must be of type float"),
        (SEARCH, {"OPTIM__BASE_LR": None}, "OPTIM.BASE_LR is missing"),
        (SEARCH, {"TRAIN__PORTION": 0.3}, "TRAIN.PORTION=0.3"),
        (SEARCH, {"MODEL__NUM_CLASSES": 10}, "MODEL.NUM_CLASSES=10"),
        (SEARCH, {"MODEL__INPUT_CHANNELS": 1}, "MODEL.INPUT_CHANNELS=1"),
        (EVALUATION, {"MODEL__LOSS_FUN": "focal"}, "MODEL.LOSS_FUN='focal'"),
        (EVALUATION, {"NAS__GENOTYPE": "unnas_imagenet_rott"}, "did you mean unnas_in1k_rot"),
        (EVALUATION, {"TEST__SPLIT": "train"}, "TEST.SPLIT='train'"),
        (EVALUATION, {"TEST__DATASET": "cifar10"}, "TEST.DATASET='cifar10'"),
        (SAMPLE, {"NAS__CUSTOM_GENOTYPE": [[["none", 0]], [2]]}, "NAS.CUSTOM_GENOTYPE"),
        (SAMPLE, {"BN__EPS": 1e-3}, "BN.EPS=0.001"),
        (SAMPLE, {"BN__USE_CUSTOM_WEIGHT_DECAY": True}, "BN.USE_CUSTOM_WEIGHT_DECAY=True"),
        (BENCHMARK, {"NAS__MATRIX": [[0, 1], [0, 0]]}, "NAS.MATRIX"),
    ],
)
def test_what_cannot_be_had_is_refused(tree, changes, words):
    with pytest.raises(UserError) as error:
        convert(changed(tree, **changes))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["MODEL: [", "a: 1", "just words", "!!python/object:os.system {}"])
def test_what_is_no_config_of_the_release(text):
    with pytest.raises(UserError, match="^F: not"):
        release.read(text, "F")


@pytest.mark.parametrize("tree", [SEARCH, EVALUATION, SEGMENTATION, SAMPLE, BENCHMARK])
def test_there_and_back(tree):
    config, _ = convert(tree)
    back, notes = config_to_release.to_release(config.to_dict(), tree["MODEL"]["NUM_CLASSES"])
    jigsaw = "the jigsaw's classes are other permutations there"
    assert notes == ([jigsaw] if config.task.name == "jigsaw" else [])
    again, notes = convert(yaml.safe_load(config_to_release.as_yaml(back)))
    assert again.to_dict() == config.to_dict() and notes == []


def test_what_the_release_would_do_otherwise_is_said():
    config = recipe("rot_photos")
    tree, notes = config_to_release.to_release(config, 4)
    assert tree["TRAIN"]["DATASET"] == "imagenet"
    assert notes == [
        "the release has no dataset 'photos': TRAIN.DATASET is 'imagenet'",
        "config.input.mirrored: False -> True",
        "config.input.resampling: area -> bilinear",
        "config.input.swapped_statistics: False -> True",
    ]
    config = recipe("darts_cifar10")
    _, notes = config_to_release.to_release(config, 10)
    assert notes == ["config.weights.final_learning_rate: 0.001 -> 0.0"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "configs" / "phase" / "rot.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(changed(SEARCH, NUM_GPUS=8)))
    return path


def test_the_flag_takes_a_file_and_overrides(file, capsys):
    config = command_line.read_config(str(file))
    command_line.override(config, ["--config.network.cells=3"])
    assert (config.experiment, config.network.cells, config.is_locked) == ("search", 3, True)
    assert "without an equivalent here: NUM_GPUS" in capsys.readouterr().err
    for word in ("--config.network.depth=3", "--config.network.cells=many"):
        with pytest.raises(UserError, match=word.split("=")[0].split(".")[-1]):
            command_line.override(config, [word])
    with pytest.raises(UserError, match="nowhere.yaml: cannot be read"):
        command_line.read_config("nowhere.yaml")
    assert config_lib.workdir(str(file)) == "runs/phase_rot"
    assert config_lib.workdir("here/rot.yml") == "runs/rot"


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_the_command_writes_a_config_file(file, tmp_path, capsys):
    out = tmp_path / "mine.py"
    assert command.main(["config", str(file), f"--out={out}"]) == 0
    assert str(out) in capsys.readouterr().out
    expected, _ = release.load(str(file))
    assert command_line.read_config(str(out)).to_dict() == expected.to_dict()
    assert command.main(["config", str(file)]) == 0
    assert capsys.readouterr().out == out.read_text()
    assert command.main(["config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: cannot be read" in capsys.readouterr().err


def test_tools_take_a_file(file, capsys):
    config, _ = release.load(str(file))
    assert complexity.of_config(config.to_dict())["width"] == 16
    assert show.main([f"--config={file}", f"--config.dataset.data_dir={file.parent}"]) == 2
    assert "'imagenet2012': is not prepared" in capsys.readouterr().err
