"""The release's YAML: what it means here, what is listed, what is refused."""

import copy
import dataclasses
import importlib

import pytest
import yaml

from unnas_jax.commands import command_line, complexity, show
from unnas_jax.commands import convert as command
from unnas_jax.config import schema as config_lib
from unnas_jax.convert import config as release
from unnas_jax.convert import config_to_release
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts import published
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
        "DATASET": "cityscapes", "BATCH_SIZE": 64, "IM_SIZE": 769, "EVAL_PERIOD": 100,
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


@pytest.mark.parametrize(
    "name, changes",
    [
        ("cls_in1k", {}),
        (
            "rot_in1k",
            {"TASK": "rot", "MODEL__NUM_CLASSES": 4, "OPTIM__BASE_LR": 0.05,
             "OPTIM__ARCH_BASE_LR": 1.5e-4, "TRAIN__BATCH_SIZE": 32},
        ),
        (
            "cls_in22k",
            {"TRAIN__DATASET": "imagenet22k", "MODEL__NUM_CLASSES": 21841, "OPTIM__BASE_LR": 0.4,
             "OPTIM__ARCH_BASE_LR": 1.2e-3, "TRAIN__BATCH_SIZE": 256, "OPTIM__MAX_EPOCH": 1,
             "OPTIM__ARCH_EPOCH": None},
        ),
        (
            "seg_cityscapes",
            {"TASK": "seg", "TRAIN__DATASET": "cityscapes", "MODEL__NUM_CLASSES": 19,
             "MODEL__ASPP_CHANNELS": 64, "MODEL__ASPP_RATES": [6], "NAS__DEPTH": 12,
             "TRAIN__BATCH_SIZE": 32, "TRAIN__IM_SIZE": 321, "TEST__IM_SIZE": 512,
             "TEST__BATCH_SIZE": 64, "OPTIM__MAX_EPOCH": 400, "OPTIM__WEIGHT_DECAY": "3e-4",
             "OPTIM__ARCH_EPOCH": 0},
        ),
    ],
)  # fmt: skip
def test_searches_are_the_recipes_here(name, changes):
    config, notes = convert(changed(SEARCH, **changes))
    expected = recipe(name)
    expected["eval"]["max_images"] = -1
    expected["input"]["swapped_statistics"] = True
    assert config_lib.difference(config.to_dict(), expected) == []
    assert notes == []


def test_evaluations_are_the_recipes_here():
    for tree, expected in (
        (EVALUATION, recipe("eval_in1k", "unnas_in1k_rot")),
        (SEGMENTATION, recipe("eval_cityscapes", "darts_v2")),
    ):
        config, notes = convert(tree)
        expected["seeds"] = 1  # A file of the release is one.
        expected["input"]["swapped_statistics"] = True
        assert config_lib.difference(config.to_dict(), expected) == []
        assert notes == []


def test_the_release_normalises_red_as_blue():
    dataset = dataclasses.make_dataclass("Facts", ["mean", "std"])((0.1, 0.2, 0.3), (1, 2, 4))
    for tree, mean, std in (
        (EVALUATION, (0.3, 0.2, 0.1), (4, 2, 1)),
        (SAMPLE, dataset.mean, dataset.std),
    ):
        config, _ = convert(tree)
        found = Augmentation.create(config.to_dict(), dataset)
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
