"""Tests of the report: the numbers it shows, that it needs nothing else, and its errors."""

import base64
import html
import importlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import xml.etree.ElementTree

import pytest

from tests import fuzzing
from tests.analysis import synthetic
from unnas_jax.analysis import next_step, report
from unnas_jax.commands import command_line
from unnas_jax.commands import report as command
from unnas_jax.core.errors import UserError
from unnas_jax.runs import validation
from unnas_jax.spaces.darts import genotype as genotypes
from unnas_jax.spaces.nasbench201 import spec

FILES = {"cells.svg", "cells.png", "alphas.png", "curves.png", "report.html"}


@pytest.fixture(autouse=True)
def widths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts that no real network has, so that they are found in the report for one reason."""

    def evaluation_sizes(genotype: genotypes.Genotype) -> list[dict]:
        assert isinstance(genotype, genotypes.Genotype)
        return [
            {"name": "a network", "cells": 14, "width": 46, "input_size": 224,
             "parameters": 4_321_000, "parameters_with_auxiliary": 5_678_000,
             "multiply_adds": 567_400_000}
        ]  # fmt: skip

    monkeypatch.setattr(report, "evaluation_sizes", evaluation_sizes)


def text_of(page: str) -> str:
    """What a reader sees of a page."""
    return re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))


@pytest.mark.parametrize(
    ("dataset", "recipe", "space"),
    [
        ({"name": "photos"}, "eval_photos", "darts"),
        ({"name": "cifar10", "data_dir": "/data/my sets"}, "eval_cifar10", "darts"),
        ({"name": "tfds:cifar10"}, "eval_cifar10", "darts"),
        ({"name": "cityscapes"}, "eval_cityscapes", "darts"),
        ({"name": "imagenet2012"}, "eval_in1k", "darts"),
        ({"name": "imagenet22k"}, "eval_in1k", "darts"),
        ({"name": "folder", "path": "my images"}, "eval_folder", "darts"),
        (
            {"name": "folder_maps", "path": "my maps", "ignore_label": 11},
            "eval_seg_folder",
            "darts",
        ),
        ({"name": "tfds:oxford_flowers102"}, "eval_folder", "darts"),
        ({"name": "digits"}, "eval_cifar10", "darts"),
        ({"name": "cifar100"}, "eval_cifar10", "nasbench201"),
        ({"name": "photos"}, "eval_photos", "nasbench201"),
    ],
)
def test_the_next_step_trains_on_what_was_searched_on(
    dataset: dict[str, str], recipe: str, space: str, tmp_path: pathlib.Path
) -> None:
    """The command is taken apart as a shell and the program would, and its config is valid."""
    workdir = tmp_path / "it's here"
    synthetic.write(workdir, nodes=4)
    searched = json.loads((workdir / "config.json").read_text())
    searched["dataset"] = {"path": "", "data_dir": "", **dataset}
    searched["network"]["space"] = space
    if recipe == "eval_cifar10":  # Datasets of small images are searched at their size.
        searched["input"].update(crop=16, resize=16)
    if space == "nasbench201":
        (workdir / "genotype.json").write_text(json.dumps(spec.sample(1, 0)[0].as_dict()))
    _, command = next_step.of_search(searched, str(workdir))
    python, main, *flags = shlex.split(command)
    assert (python, main) == ("python", "main.py")
    values = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
    file = values.pop("config")
    assert file == f"configs/{recipe}.py:{workdir}/genotype.json"
    assert values.pop("workdir") == f"{workdir}/{recipe}"
    _, _, genotype = file.partition(":")
    config = importlib.import_module(f"configs.{recipe}").get_config(genotype)
    config.lock()
    command_line.override(config, [f"--{key}={value}" for key, value in values.items()])
    validation.validate(config)
    if recipe != "eval_in1k":
        assert config.dataset.name.removeprefix("tfds:") == dataset["name"].removeprefix("tfds:")
    assert config.dataset.data_dir == dataset.get("data_dir", "")
    assert config.dataset.path == dataset.get("path", "")


def test_after_a_pretext_task_on_images_with_label_maps_the_next_step_uses_these(
    tmp_path: pathlib.Path,
) -> None:
    for name in ("images", "labels"):
        (tmp_path / "train" / name).mkdir(parents=True)
    section = {"name": "folder", "path": str(tmp_path), "ignore_label": 11}
    title, command = next_step.of_search({"dataset": section}, "runs/rot_folder")
    assert "label maps" in title
    assert shlex.split(command)[2:] == [
        "--config=configs/eval_seg_folder.py:runs/rot_folder/genotype.json",
        f"--config.dataset.path={tmp_path}",
        "--config.dataset.ignore_label=11",
        "--workdir=runs/rot_folder/eval_seg_folder",
    ]
    (tmp_path / "train" / "labels").rmdir()
    assert "eval_folder" in next_step.of_search({"dataset": section}, "runs/rot_folder")[1]


def test_images_in_memory_are_evaluated_on_from_python() -> None:
    config = {"dataset": {"name": "arrays_0123456789ab", "path": ""}}
    title, line = next_step.of_search(config, "runs/mine")
    assert "from Python" in title
    assert line == "un.train(dataset, 'runs/mine/train', 'runs/mine/genotype.json')"


def test_report_of_a_finished_search(tmp_path: pathlib.Path) -> None:
    synthetic.write(tmp_path, nodes=4)
    paths = report.write(tmp_path)
    assert {pathlib.Path(path).name for path in paths} == FILES
    before = {path.name for path in tmp_path.iterdir()}
    assert before == FILES | {"config.json", "genotype.json", "alphas.npz", "metrics.jsonl"}
    page = (tmp_path / "report.html").read_text()
    text = text_of(page)
    # 0.2371 + 0.05 * 3 epochs; at 64 images a second 10 steps of one batch of 32,
    # then 50 steps of two.
    for expected in ("38.7%", "chance 25.0%", "rotation", "photos", "epoch 3 of 3", "55 s",
                     "finished", "a network", "4.32 M", "5.68 M", "567 M", "1.2.3",
                     "640 + 640 images", '"init_scale": 0.001'):  # fmt: skip
        assert expected in html.unescape(text), expected
    assert f"configs/eval_photos.py:{tmp_path}/genotype.json" in text
    assert "http-equiv" not in page
    document = json.loads((tmp_path / "genotype.json").read_text())
    for kind in ("normal", "reduce"):
        for operation, _ in document["genotype"][kind]:
            assert f"<td>{operation}</td>" in page
    for row in re.findall(r"0\.\d{3}(?=</td>)", page):
        assert 1 / 8 - 0.01 < float(row) < 1


def test_page_needs_nothing_else(tmp_path: pathlib.Path) -> None:
    synthetic.write(tmp_path)
    report.write(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "<link" not in page and "@import" not in page
    for target in re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page):
        assert target.startswith(("data:image/png;base64,", "#")), target
    for target in re.findall(r"url\(([^)]*)\)", page):
        assert target.startswith("#"), target
    pictures = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    embedded = {base64.b64decode(picture) for picture in pictures}
    assert embedded == {(tmp_path / name).read_bytes() for name in ("alphas.png", "curves.png")}
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    svg = page[page.index("<svg") : page.index("</svg>") + len("</svg>")]
    xml.etree.ElementTree.fromstring(svg)
    xml.etree.ElementTree.parse(tmp_path / "cells.svg")


@pytest.mark.parametrize("rows", [1, 3])
def test_report_of_a_running_search(tmp_path: pathlib.Path, rows: int) -> None:
    synthetic.write(tmp_path, rows=rows, finished=False)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "step": 99999, "acc')
    assert len(report.write(tmp_path)) == len(FILES)
    page = (tmp_path / "report.html").read_text()
    assert "not finished" in page and "http-equiv" in page
    assert ("about 30 s left" in page) == (rows > 1)
    assert "99999" not in page and "unreadable" not in page


def test_report_before_the_first_alphas(tmp_path: pathlib.Path) -> None:
    synthetic.write(tmp_path)
    for name in ("alphas.npz", "genotype.json", "metrics.jsonl"):
        (tmp_path / name).unlink()
    names = {pathlib.Path(path).name for path in report.write(tmp_path)}
    assert names == {"curves.png", "report.html"}


def test_text_of_the_user_is_escaped_and_paths_are_quoted(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "my <b>runs"
    synthetic.write(path)
    config = json.loads((path / "config.json").read_text())
    config["dataset"] |= {"name": "folder", "path": "<script>"}
    (path / "config.json").write_text(json.dumps(config))
    report.write(path)
    page = (path / "report.html").read_text()
    assert "<script" not in page and "<b>" not in page
    # Quoted for a shell, and then escaped.
    assert "/genotype.json&#39; " in page


def test_redrawing_changes_nothing(tmp_path: pathlib.Path) -> None:
    synthetic.write(tmp_path)
    first = {path: pathlib.Path(path).read_bytes() for path in report.write(tmp_path)}
    second = {path: pathlib.Path(path).read_bytes() for path in report.write(tmp_path)}
    assert first == second


def test_command_line(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.write(tmp_path)
    assert command.main([str(tmp_path), "--open", "no"]) == 0
    assert set(capsys.readouterr().out.split()) == {str(tmp_path / name) for name in FILES}


def test_what_is_wrong_is_said_before_an_evaluation_is_advised(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.write(tmp_path, rows=1)  # Finished, and no alpha has moved.
    lines = synthetic.records(3)
    lines[-1]["accuracy"] = 0.251
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert command.main([str(tmp_path), "--open", "no"]) == 0
    error = capsys.readouterr().err
    text = text_of((tmp_path / "report.html").read_text())
    for words in ("no alpha has moved", "25.1%, is that of guessing (25%)"):
        assert words in error
        assert text.count(words) == 2  # On top, and where commands are advised.
    assert "An evaluation of these cells would tell nothing" in text


def test_a_training_has_a_report_and_a_sweep_a_hint(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("training", "sweep"):
        (tmp_path / name).mkdir()
    fuzzing._write_training(tmp_path / "training")
    fuzzing._write_sweep(tmp_path / "sweep")
    paths = report.write(tmp_path / "training")
    assert {pathlib.Path(path).name for path in paths} == FILES - {"alphas.png"}
    text = text_of((tmp_path / "training" / "report.html").read_text())
    for words in ("Training: classification on photos", "60.00 ± 10.00%", "50.00, 60.00, 70.00",
                  "chance 10.0%", "darts_v2", "sep_conv_3x3", "finished"):  # fmt: skip
        assert words in text, words
    assert command.main([str(tmp_path / "sweep"), "--open", "no"]) == 2
    assert "the workdir of a sweep" in capsys.readouterr().err


def test_a_workdir_whose_name_is_no_text(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = os.path.join(tmp_path, os.fsdecode(b"caf\xe9 it's"))
    synthetic.write(pathlib.Path(path))
    assert command.main([path, "--open", "no"]) == 0
    assert "caf\ufffd" in capsys.readouterr().out
    page = pathlib.Path(path, "report.html").read_text()
    [words] = re.findall(r"<pre>python main\.py ([^<]*)</pre>", page)
    # What a shell makes of it is the name itself.
    shell = ["bash", "-c", f"printf '%s\\n' {html.unescape(words)}"]
    shown = subprocess.run(shell, capture_output=True, check=True).stdout
    assert b"--config=configs/eval_photos.py:" + os.fsencode(path) + b"/genotype.json\n" in shown


def test_damaged_rows_are_skipped_and_said(tmp_path: pathlib.Path) -> None:
    synthetic.write(tmp_path)
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'5\n{}\n\xff\xfe\n{"kind": "train", "step": 9, "epoch": 1, "loss": Infinity}\n')
        file.write(b'{"kind": "validation", "step": 9, "epoch": "x", "loss": 1, "accuracy": 1}\n')
    report.write(tmp_path)
    assert "5 unreadable lines of metrics.jsonl" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda p: None, "no such workdir"),
        (lambda p: p.mkdir(), "not a workdir"),
        (lambda p: p.write_text(""), "is a file"),
        (lambda p: (synthetic.write(p), (p / "alphas.npz").write_text("x")), "alphas.npz: damaged"),
        # A folder in the place of a picture stands for whatever keeps a file from being written.
        (lambda p: (synthetic.write(p), (p / "curves.png").mkdir()), "cannot write"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], prepare, message: str
) -> None:
    path = tmp_path / "workdir"
    prepare(path)
    assert command.main([str(path), "--open", "no"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and message in captured.err
    assert not list(tmp_path.glob("**/.*"))


def test_a_report_tells_of_every_class(tmp_path: pathlib.Path) -> None:
    fuzzing._write_training(tmp_path)
    path = tmp_path / "result.json"
    result = json.loads(path.read_text())
    # Of 8 cats 6 are found, of 2 dogs none; there is no emu.
    result["by_class"] = {
        "names": ["cat", "dog", "<emu>"],
        "metric": "accuracy",
        "values": [0.75, 0.0, None],
        "confusion": [[6, 1, 1], [2, 0, 0], [0, 0, 0]],
    }
    result["top5"] = [0.9, 0.95, 1.0]
    path.write_text(json.dumps(result))
    report.write(tmp_path)
    text = html.unescape(text_of((tmp_path / "report.html").read_text()))
    text = " ".join(text.split())
    for words in ("top-5 95.0%", "cat 75.0% 8 dog 0% 2 <emu> does not occur 0",
                  "cat 75 12 12 dog 100 0 0"):  # fmt: skip
        assert words in text, words
    result["by_class"]["confusion"][1] = [2, 0]
    path.write_text(json.dumps(result))
    with pytest.raises(UserError, match="its classes are not as many everywhere"):
        report.write(tmp_path)
