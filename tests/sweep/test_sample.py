"""A small sweep from its command to its figures; its mistakes; what it tells about itself."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import cv2
import pytest

from tests import tiny, tiny_training
from tests.conftest import QUICK, ROOT
from unnas_jax.commands import status as status_command
from unnas_jax.config import schema as config_lib
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.sweep import sample
from unnas_jax.sweep.units import Store

CELLS = [
    Genotype((("dil_conv_3x3", 0), ("skip_connect", 1)), (2,), (("max_pool_3x3", 0),) * 2, (2,)),
    Genotype((("none", 0), ("skip_connect", 1)), (2,), (("max_pool_3x3", 0),) * 2, (2,)),
]


def config(images: pathlib.Path, cells: pathlib.Path | str = ""):
    """Two tasks on 32 images of two classes: 8 steps, evaluated after 4 and 8, two seeds."""
    c = config_lib.sample()
    training = tiny_training.config(epochs=2)
    training.dataset.update(name="folder", path=str(images))
    training.seeds = 2
    c.training = training.to_dict()
    c.tasks = ("classification", "rotation")
    c.recipes = {"rotation": {"weights": {"learning_rate": 0.05}}}
    c.sample.architectures = str(cells)
    return c


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("images")
    for name, order in (("above", 1), ("below", -1)):
        (folder / name).mkdir()
        for number, image in enumerate(tiny.upright(32, 20)):
            cv2.imwrite(str(folder / name / f"{number:03d}.png"), image[::order])
    return folder


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("cells") / "cells.txt"
    path.write_text("".join(f"{cell}\n" for cell in CELLS))
    return path


@pytest.fixture(scope="module")
def finished(images, cells, tmp_path_factory) -> pathlib.Path:
    """The workdir of a sweep that a user started, with one worker."""
    workdir = tmp_path_factory.mktemp("runs") / "sweep"
    environment = dict(os.environ, XLA_FLAGS=QUICK)
    script = workdir.parent / "recipe.py"
    script.write_text(
        f"from tests.sweep import test_sample\n"
        f"get_config = lambda: test_sample.config({str(images)!r}, {str(cells)!r})\n"
    )
    command = [sys.executable, "main.py", f"--config={script}", f"--workdir={workdir}"]
    done = subprocess.run(
        [*command, "--config.sweep.cores_per_worker=64"],
        cwd=ROOT,
        env=dict(environment, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "2 architectures" in done.stderr and "4 of 4 units done" in done.stderr
    return workdir


def test_every_unit_leaves_one_file(finished):
    paths = sorted(finished.glob("units/*/*.json"))
    assert [path.stem for path in paths] == ["classification", "rotation"] * 2
    for path in paths:
        unit = json.loads(path.read_text())
        assert (unit["seeds"], unit["dataset"], unit["step"]) == ([0, 1], "folder", 8)
        assert unit["architecture"] == path.parent.name
        assert [row["epoch"] for row in unit["curve"]] == [1, 2]
        # The best of every seed over the epochs, then the mean over seeds.
        best = [max(row["values"][k] for row in unit["curve"]) for k in range(2)]
        assert unit["values"] == best and unit["accuracy"] == pytest.approx(sum(best) / 2)
        assert 0 < unit["compile"]["seconds"] < unit["seconds"] and unit["compile"]["programs"] >= 2
    chosen = json.loads((finished / "architectures.json").read_text())
    assert [a["cell"] for a in chosen["architectures"]] == [str(cell) for cell in CELLS]
    # Neither checkpoints nor anything else of the trainings is left.
    assert not list(finished.glob("scratch/*/*"))


def test_what_a_worker_left_that_was_killed_behind_its_result_is_removed(
    finished, images, cells, tmp_path
):
    shutil.copytree(finished, tmp_path / "w")
    unit = next((tmp_path / "w").glob("units/*/*.json"))
    scratch = tmp_path / "w" / "scratch" / unit.parent.name / unit.stem
    other = tmp_path / "w" / "scratch" / "other" / "unit"
    for folder in (scratch, other):
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").touch()
    sample.sample(config(images, cells), str(tmp_path / "w"))
    assert [path.name for path in (tmp_path / "w" / "scratch").iterdir()] == ["other"]
    assert (other / "metrics.jsonl").exists()


def test_status(finished, tmp_path, capsys):
    assert status_command.main([str(finished)]) == 0
    line = capsys.readouterr().out
    assert line.startswith("4 of 4 units done, 0 running, 0 failed")
    assert "networks an hour" in line and "compiling" in line
    status = sample.status_of(str(finished))
    assert len(status.finished) == 4 and status.seconds_left is None
    assert status_command.main([str(tmp_path)]) == 2
    assert "config.json" in capsys.readouterr().err


def test_status_of_units_that_run_and_failed(images, cells, tmp_path):
    c = config(images, cells)
    units = sample.all_units(c, sample._architectures(c, str(tmp_path)))
    store = Store(str(tmp_path))
    result = {"seconds": 10.0, "seeds": [0, 1], "compile": {"seconds": 5.0}}
    store.finish(units[0], result)
    store.fail(units[1], "no luck")
    with store.claim(units[2]):
        state = sample.status(store, units)
    assert (len(state.finished), list(state.running)) == (1, [units[2].name])
    assert state.failed == {units[1].name: "no luck"}
    assert state.seconds_left == 20  # Two units of ten seconds by one worker.
    lines = state.lines()
    assert "720.0 networks an hour and worker" in lines[0] and "50% of the time" in lines[0]
    assert lines[2] == f"failed {units[1].name}: no luck"


def test_status_of_units_that_taught_nothing_or_are_damaged(images, cells, tmp_path):
    c = config(images, cells)
    units = sample.all_units(c, sample._architectures(c, str(tmp_path)))
    store = Store(str(tmp_path))
    result = {"seconds": 10.0, "seeds": [0, 1], "compile": {"seconds": 5.0}, "task": "rotation"}
    store.finish(units[1], {**result, "warnings": ["the accuracy is that of guessing"]})
    store.finish(units[3], {**result, "warnings": []})
    store.finish(units[0], {**result, "seconds": "ten"})
    state = sample.status(store, units)
    assert (
        "1 of 2 units of rotation are no better than guessing: they rank nothing" in state.lines()
    )
    [reason] = state.failed.values()
    assert "seconds is 'ten', not a number" in reason and "remove it" in reason


def test_a_second_start_has_nothing_to_do(finished, images, cells, monkeypatch):
    monkeypatch.setattr(sample.local_engine, "run", None)  # Whoever called it would fail.
    before = {p: p.stat().st_mtime_ns for p in finished.glob("units/*/*.json")}
    state = sample.sample(config(images, cells), str(finished))
    assert len(state.finished) == 4
    assert {p: p.stat().st_mtime_ns for p in finished.glob("units/*/*.json")} == before


def test_another_config_is_refused(finished, images, cells):
    c = config(images, cells)
    c.training.train.batch_size = 4
    with pytest.raises(UserError, match="training.train.batch_size: 8 -> 4"):
        sample.sample(c, str(finished))


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("sweep.shard", "3/3", "counted from 0"),
        ("sweep.engine", "slurm", "local, ray"),
        ("sample.parameters", (2, 1), "least and the most"),
        ("sample.architectures", "/nowhere", "cannot read /nowhere"),
        ("tasks", ("rotation", "rotation"), "once"),
        ("tasks", ("cls",), "classification"),
        ("recipes.rotation", {"train": {"epoch": 3}}, "train.epoch: no such key.*recipes.rotation"),
        ("recipes.rotation", {"train": {"epochs": "x"}}, "recipes.rotation.*epochs"),
        ("recipes.rotation", {"train": {"epochs": 0}}, "training.train.epochs=0"),
        ("training.input.crop", 100, "training.input.crop=100"),
        ("training.dataset.path", "/nowhere", "/nowhere"),
        ("training.network.space", "nas", "darts, nasbench101"),
    ],
)
def test_mistakes_before_anything_long(key, value, words, images, tmp_path):
    c = config(images)
    c.sample.update(count=1, nodes=1, parameters=(0, 10_000_000))
    c.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=words) as error:
        sample.sample(c, str(tmp_path / "w"))
    assert "\n" not in str(error.value)


def test_a_bad_list_leaves_the_workdir_to_another(images, tmp_path):
    c = config(images)
    c.sample.architectures = "/nowhere"
    with pytest.raises(UserError, match="cannot read /nowhere"):
        sample.sample(c, str(tmp_path / "w"))
    assert not (tmp_path / "w").exists()


def test_a_task_s_recipe_is_laid_over_what_all_share(images):
    c = config(images)
    rotation, other = (config_lib.of_unit(c, t, "darts_v2") for t in ("rotation", "classification"))
    assert (rotation.weights.learning_rate, other.weights.learning_rate) == (0.05, 0.1)
    assert (rotation.task.name, other.task.name) == ("rotation", "classification")
    assert rotation.train == other.train
