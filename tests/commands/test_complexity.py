"""The command that counts: its numbers, mistakes, time and memory."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests import conftest, handmade
from unnas_jax.commands import complexity as complexity_command
from unnas_jax.config.recipes import CITYSCAPES_WIDTHS
from unnas_jax.core.errors import UserError
from unnas_jax.data import photos
from unnas_jax.spaces import complexity
from unnas_jax.spaces.darts import widths
from unnas_jax.spaces.darts.published import GENOTYPES

pytestmark = pytest.mark.filterwarnings(  # Of ml_collections, when it reads a recipe.
    "ignore:the load_module:DeprecationWarning"
)


def test_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "main.py", "complexity", "--config=configs/rot_in1k.py", "--json"],
        cwd=conftest.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["parameters"] == counts["parameters_with_auxiliary"] == 1_929_900
    assert (counts["width"], counts["input_size"], counts["inputs"]) == (16, 224, 1)
    assert counts["multiply_adds"] == sum(layer["multiply_adds"] for layer in counts["layers"])
    assert done.stderr == ""


def test_an_evaluation_s_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert complexity_command.main(["--config=eval_in1k:unnas_in22k_rot", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    same = widths.IMAGENET.count(GENOTYPES["unnas_in22k_rot"], 42)
    assert {name: counts[name] for name in same.totals()} == same.totals()
    assert (counts["width"], counts["input_size"]) == (42, 224)
    assert counts["parameters_with_auxiliary"] > counts["parameters"]


def test_a_sample(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The benchmark's largest cell: 220 M multiply-adds, 1.53 M parameters, as published."""
    cell = "+".join("|" + "|".join(f"nor_conv_3x3~{k}" for k in range(n)) + "|" for n in (1, 2, 3))
    (tmp_path / "cells.txt").write_text(cell + "\n")
    words = [
        "--config=sample_nasbench201_cifar10",
        f"--config.sample.architectures={tmp_path / 'cells.txt'}",
        "--config.tasks=('classification','rotation','synflow')",
        "--config.training.seeds=2",
    ]
    assert complexity_command.main([*words, "--json"]) == 0
    labels, rotation = json.loads(capsys.readouterr().out)
    assert (labels["multiply_adds"], labels["parameters"]) == (220_119_680, 1_531_546)
    assert (labels["trainings"], labels["steps"], labels["images"]) == (2, 39_000, 9_984_000)
    assert labels["flop"] == 2 * 9_984_000 * 220_119_680 * 6
    assert rotation["inputs"] == 4 and rotation["steps"] == 200 * (50_000 // 32)
    of_one = 220_119_680 - 64 * 10 + 64 * 4  # Its head has four classes.
    assert rotation["multiply_adds"] == 4 * of_one
    assert complexity_command.main(words) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["task", "classification", "rotation"]
    assert complexity_command.main([*words, "--time"]) == 2
    assert "--time: is of one network" in capsys.readouterr().err


def test_whole_images() -> None:
    """Table 2's row, which a training counts as the command does: not at its crops."""
    from configs import eval_cityscapes

    config = eval_cityscapes.get_config("darts_v2").to_dict()
    counts = complexity.of_config(config)
    same = widths.CITYSCAPES.count(GENOTYPES["darts_v2"], CITYSCAPES_WIDTHS["darts_v2"])
    assert counts["input_size"] == [1025, 2049]
    assert {name: counts[name] for name in same.totals()} == same.totals()
    assert counts["multiply_adds"] / 1e9 == pytest.approx(98.9, abs=0.05)
    config["eval"]["crop"] = "centre"
    assert complexity.of_config(config)["multiply_adds"] / 1e9 == pytest.approx(28.2, abs=0.05)


def test_the_command_names_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert complexity_command.main(["--config=rot_in1k", "--config.network.width=15"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "config.network.width=15" in printed.err
    assert len(printed.err.splitlines()) == 1


def test_a_network_that_its_inputs_are_too_small_for(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--config.input.crop=16", "--config.network.cells=3"]
    assert complexity_command.main(["--config=eval_cifar10:darts_v2", *small]) == 2
    assert "features of at least 8 pixels, and there they have 4" in capsys.readouterr().err


def test_classes_that_only_the_dataset_knows() -> None:
    from configs import cls_photos

    config = cls_photos.get_config().to_dict()
    assert complexity.of_config(config)["layers"][-1]["parameters"] % len(photos.NAMES) == 0
    config["dataset"].update(name="tfds:oxford_flowers102")
    with pytest.raises(UserError, match="flowers102': its number of classes is not known"):
        complexity.of_config(config)
    more = complexity.of_config(config, classes=23)["parameters"]
    assert more > complexity.of_config(config, classes=22)["parameters"]


def test_time_and_memory_of_a_small_network(capsys):
    """Memory against what XLA cannot do without: weights, images and logits."""
    config = conftest.ROOT / "configs" / "eval_photos.py"
    small = ["--config.input.crop=16", "--config.network.width=4", "--config.network.cells=3"]
    space = ["--config.network.space=nasbench201", "--config.network.stem=cifar"]
    space.append(f"--config.network.genotype={handmade.SMALL['genotype']}")
    arguments = [f"--config={config}", *small, *space, "--json", "--time", "--batch=3"]
    assert complexity_command.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    measured = found["measured"]
    least = 4 * (found["parameters"] + 3 * 16 * 16 * 3 + 3 * 11)
    assert least < measured["memory_bytes"] < 1000 * least and measured["batch"] == 3
    assert 0 < measured["milliseconds"] <= measured["milliseconds_90"]
    per_second = 3000 / measured["milliseconds"]
    assert measured["answers_per_second"] == pytest.approx(per_second)
    assert complexity_command.main([f"--config={config}", "--time", "--batch=0"]) == 2
    assert "--batch=0: must be at least 1" in capsys.readouterr().err
