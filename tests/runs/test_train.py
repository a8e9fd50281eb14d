"""Whole trainings: outputs, kills, signals, evaluation of checkpoints, mistakes."""

import errno
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess

import cv2
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests import tiny, tiny_training
from tests.configs import tiny_training as whole_training
from tests.conftest import QUICK, ROOT
from tests.test_runs import finish, main, rows, steps, wait_for
from unnas_jax.config.sections import Batches
from unnas_jax.core import files, sharding
from unnas_jax.core.errors import Interruption, UserError
from unnas_jax.data import Dataset, halves, open_dataset
from unnas_jax.learning.feed import Feed
from unnas_jax.runs import seeds, train
from unnas_jax.spaces.darts.genotype import SCHEMA
from unnas_jax.spaces.networks import build_network
from unnas_jax.tasks import registry
from unnas_jax.tasks.classification import Classification

pytestmark = pytest.mark.usefixtures("on_two_devices")


def _write_images(folder: pathlib.Path, count: int, seed: int = 0) -> None:
    """Two classes: skies above and skies below."""
    for name, order in (("above", 1), ("below", -1)):
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(tiny.upright(count, 20, seed)):
            cv2.imwrite(str(folder / name / f"{number:03d}.png"), image[::order])


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("images") / "labelled"
    _write_images(folder, 32)
    return folder


def _write_cells(path: pathlib.Path, **changes) -> pathlib.Path:
    cells = {**tiny_training.CELLS.as_dict(), **changes}
    document = {"schema": SCHEMA, "genotype": cells, "dataset": "photos", "task": "rotation"}
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> pathlib.Path:
    return _write_cells(tmp_path_factory.mktemp("cells") / "genotype.json")


def config(images, cells, **changes):
    c = tiny_training.config(epochs=12)
    c.dataset.update(name="folder", path=str(images))
    c.network.genotype = str(cells)
    c.seeds = 1
    c.update_from_flattened_dict(changes)
    return c


def start(workdir, images, cells, *flags: str, held: int | None = None) -> subprocess.Popen:
    environment = dict(os.environ, XLA_FLAGS=QUICK)
    return subprocess.Popen(
        [*main(held), "--config=tests/configs/tiny_training.py"]
        + [f"--workdir={workdir}", f"--config.dataset.path={images}"]
        + [f"--config.network.genotype={cells}", *flags],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, images, cells) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    log = finish(start(workdir, images, cells))
    assert "half of its images is held out" in log
    return workdir


def _result(workdir: pathlib.Path) -> dict:
    return json.loads((workdir / "result.json").read_text())


def _newest_state(workdir: pathlib.Path) -> dict:
    manager = ocp.CheckpointManager(workdir / "checkpoints")
    state = manager.restore(manager.latest_step()).state
    manager.close()
    return state


def test_a_training_leaves_its_result(uninterrupted, cells):
    result = _result(uninterrupted)
    assert result["finished"] and result["step"] == 48 and result["seeds"] == [0, 1]
    values = result["values"]
    assert len(values) == 2 and min(values) > 0.9  # Skies are easy to tell.
    assert result["mean"] == pytest.approx(np.mean(values))
    assert result["std"] == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2))
    assert result["genotype_source"] == {"dataset": "photos", "task": "rotation"}
    assert result["cells_used"] == tiny_training.CELLS.as_dict()
    validation = [row for row in rows(uninterrupted) if row["kind"] == "validation"]
    assert [row["epoch"] for row in validation] == [2, 4, 6, 8, 10, 12]
    assert validation[-1]["accuracy"] == pytest.approx(result["mean"])
    # Of the 32 images held out the share of the more frequent class.
    assert 0.5 <= result["chance"] < 0.75 and result["warnings"] == []
    assert validation[-1]["majority"] == result["chance"]
    state = _newest_state(uninterrupted)
    assert state["seed"].tolist() == [0, 1] and state["step"].tolist() == [48, 48]
    assert json.loads((uninterrupted / "genotype.json").read_text()) == json.loads(
        cells.read_text()
    )
    saved = {int(path.name) for path in (uninterrupted / "checkpoints").iterdir()}
    best = max(validation, key=lambda row: row["accuracy"])
    assert 48 in saved and best["accuracy"] in [
        row["accuracy"] for row in validation if row["step"] in saved
    ]


def test_killed_trainings_end_bitwise_the_same(uninterrupted, images, cells, tmp_path):
    workdir = tmp_path / "killed"
    # In the middle of an epoch, a step after a checkpoint.
    process = start(workdir, images, cells, held=9)
    wait_for(process, lambda: 9 in steps(workdir) and (workdir / "checkpoints" / "8").exists())
    process.kill()
    process.communicate()
    reached = max(steps(workdir))
    process = start(workdir, images, cells, held=reached + 1)
    wait_for(process, lambda: max(steps(workdir)) > reached)
    process.send_signal(signal.SIGTERM)
    assert "Stopped by a signal" in finish(process)
    assert max(steps(workdir)) < 48
    assert "continuing at step" in finish(start(workdir, images, cells))
    jax.tree.map(
        np.testing.assert_array_equal, _newest_state(workdir), _newest_state(uninterrupted)
    )
    assert _result(workdir) == _result(uninterrupted)
    kept = [
        [row for row in rows(w) if row["kind"] == "validation"] for w in (workdir, uninterrupted)
    ]
    assert kept[0] == kept[1]


def test_mode_eval_evaluates_the_newest_checkpoint(uninterrupted, images, cells, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(uninterrupted, workdir)
    (workdir / "result.json").unlink()
    before = {name: (workdir / name).read_bytes() for name in ("config.json", "metrics.jsonl")}
    finish(start(workdir, images, cells, "--config.mode=eval"))
    assert _result(workdir) == _result(uninterrupted)
    assert {name: (workdir / name).read_bytes() for name in before} == before


def test_a_finished_training_returns_its_result(uninterrupted, images, cells, tmp_path):
    """Nothing is trained again, and the file is the one that was there."""
    workdir = tmp_path / "copy"
    shutil.copytree(uninterrupted, workdir)
    before = (workdir / "result.json").stat().st_mtime_ns
    c = whole_training.get_config()
    c.dataset.path, c.network.genotype = str(images), str(cells)
    assert train.train(c, str(workdir)) == _result(uninterrupted)
    assert (workdir / "result.json").stat().st_mtime_ns == before
    assert steps(workdir) == steps(uninterrupted)


@pytest.fixture(scope="module")
def short(on_two_devices, tmp_path_factory, images, cells) -> pathlib.Path:
    """A training of two steps in this process."""
    workdir = tmp_path_factory.mktemp("runs") / "short"
    train.train(config(images, cells, **{"train.max_steps": 2}), str(workdir))
    return workdir


def test_seeds_of_one_program_end_like_seeds_in_turn(images, cells, tmp_path):
    """Three seeds, two and then one at a time, through the whole of a training."""
    changes = {"seeds": 3, "train.max_steps": 4, "train.precise_bn_images": 8, "workers": 0}
    results, states = [], []
    for together in (1, 2):
        workdir = tmp_path / str(together)
        c = config(images, cells, **changes, **{"train.seeds_together": together})
        results.append(train.train(c, str(workdir)))
        states.append(_newest_state(workdir))
    assert results[1]["seeds"] == [0, 1, 2] and results[1]["finished"]
    assert states[1]["seed"].tolist() == [0, 1, 2] and states[1]["step"].tolist() == [4, 4, 4]
    for name in ("params", "batch_stats"):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-4, rtol=1e-4),
            states[1][name],
            states[0][name],
        )
    kernel = states[1]["params"]["stem"]["conv_0"]["conv"]["kernel"]
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1  # Each has its own values.
    np.testing.assert_allclose(results[1]["loss"], results[0]["loss"], rtol=1e-3)
    assert len(set(results[1]["loss"])) == 3


def _error(c, workdir) -> str:
    with pytest.raises(UserError) as error:
        train.train(c, str(workdir))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_checkpoint_of_another_network_is_named(short, images, cells, tmp_path):
    workdir = tmp_path / "wider"
    workdir.mkdir()
    shutil.copytree(short / "checkpoints", workdir / "checkpoints")
    error = _error(config(images, cells, **{"network.width": "6"}), workdir)
    assert "checkpoint of step 2 is of another network" in error and str(workdir) in error
    assert "batch_stats/cell_0/op_0/bn_0/mean is (1, 4) there and (1, 6) here" in error
    assert (workdir / "checkpoints" / "2").is_dir()


def _tree(root: pathlib.Path) -> dict:
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in root.rglob("*")
    }


def _evaluate(workdir, images, cells):
    c = config(images, cells, **{"train.max_steps": 2, "mode": "eval"})
    return train.train(c, str(workdir))


@pytest.fixture
def copy(short, tmp_path) -> pathlib.Path:
    shutil.copytree(short, tmp_path / "copy")
    return tmp_path / "copy"


def test_an_evaluation_only_reads(copy, images, cells, monkeypatch, caplog):
    """Beside a training that writes, in a directory that it may not write to, and out of memory."""
    before = _tree(copy)

    def refuse(path, value):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", refuse)
        with caplog.at_level("WARNING", "unnas_jax"):
            found = _evaluate(copy, images, cells)
    assert "The result is not written" in caplog.text
    assert found == _result(copy) and _tree(copy) == before

    def exhausted(self, *arguments, **options):
        raise ValueError("RESOURCE_EXHAUSTED: Out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "restore", exhausted)
        with pytest.raises(Interruption, match="step 2 cannot be read now"):
            _evaluate(copy, images, cells)
    assert _tree(copy) == before

    # The training that goes on has finished meanwhile.
    newer = {**found, "step": 9, "finished": True}
    files.write_json(copy / "result.json", newer)
    _evaluate(copy, images, cells)
    assert "does not replace it" in caplog.text
    assert _result(copy) == newer
    (copy / "result.json").unlink()
    _evaluate(copy, images, cells)
    assert _result(copy) == found
    del before["result.json"]
    after = _tree(copy)
    assert {name: after[name] for name in before if name} == before


def test_an_evaluation_that_is_not_finite_is_no_result(copy, images, cells, monkeypatch):
    before = _tree(copy)
    nan = [{"accuracy": 0.5, "loss": float("nan")}]
    monkeypatch.setattr(seeds.Seeds, "evaluate", lambda self, states: nan)
    with pytest.raises(UserError, match="step 2 is NaN or infinite"):
        _evaluate(copy, images, cells)
    assert _tree(copy) == before


def test_out_of_memory_says_what_to_lower(images, cells, tmp_path, monkeypatch):
    def exhausted(self, states):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(seeds.Seeds, "evaluate", exhausted)
    error = _error(config(images, cells, **{"train.max_steps": 2}), tmp_path / "w")
    assert "out of memory" in error and "config.train.batch_size" in error
    assert "no checkpoint was saved yet" in error


def test_cells_that_changed_meanwhile_are_refused(short, images, cells, tmp_path):
    """A search that goes on replaces the file that the config names."""
    workdir, moved = tmp_path / "w", tmp_path / "genotype.json"
    c = config(images, _write_cells(moved), **{"train.max_steps": 2})
    shutil.copytree(short, workdir)
    saved = json.loads((workdir / "config.json").read_text())
    saved["network"]["genotype"] = str(moved)
    (workdir / "config.json").write_text(json.dumps(saved))
    _write_cells(moved, normal=[["avg_pool_3x3", 0], ["skip_connect", 1]])
    error = _error(c, workdir)
    assert "other cells" in error and str(moved) in error and "avg_pool_3x3" in error


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"network.genotype": "dart_v2"}, ["dart_v2", "darts_v2"]),
        ({"mode": "eval"}, ["mode='eval'", "no checkpoint"]),
        ({"train.batch_size": 64}, ["train.batch_size=64", "32 images"]),
        ({"train.batch_size": 7}, ["train.batch_size=7", "2 devices"]),
        ({"network.width": "7"}, ["network.width='7'", "even"]),
    ],
)
def test_mistakes_are_named(changes, words, images, cells, tmp_path):
    error = _error(config(images, cells, **changes), tmp_path / "w")
    assert all(word in error for word in words), error
    # A corrected config, and corrected cells too, may have the same workdir.
    kept = [path.name for path in (tmp_path / "w").glob("*")]
    assert set(kept) <= {"config.json"}


@pytest.mark.parametrize(
    "pair, words",
    [
        (["sep_conv_3x3", 2], ["normal", "state 2"]),
        (["sep_conv_4x4", 0], ["normal", "sep_conv_4x4", "sep_conv_3x3"]),
    ],
)
def test_impossible_cells_are_named(pair, words, images, tmp_path):
    cells = _write_cells(tmp_path / "genotype.json", normal=[pair, ["skip_connect", 1]])
    error = _error(config(images, cells), tmp_path / "w")
    assert all(word in error for word in words), error


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, ["at least 8 pixels", "4"]),
        ({"network.stem": "imagenet"}, ["at least 7 pixels", "1"]),
        ({"task.name": "colorization"}, ["colorization"]),
    ],
)
def test_an_auxiliary_head_needs_room_and_one_answer_an_image(
    changes, words, images, cells, tmp_path
):
    c = config(images, cells, **{"network.auxiliary_weight": 0.4}, **changes)
    error = _error(c, tmp_path / "w")
    assert all(word in error for word in ["config.network.auxiliary_weight=0.4", *words]), error


@pytest.mark.parametrize("held_out", ["validation", None])
def test_an_evaluation_of_some_images_is_one_of_all_classes(held_out, images, cells):
    """Records are in the order of their classes; the draw depends on the seed and nothing else."""
    labels = np.repeat(np.arange(10), 100)
    records = [{"image": b"", "label": int(label)} for label in labels]
    splits = {"train": records, **({held_out: records} if held_out else {})}
    dataset = Dataset("ordered", splits, 10, ("class",) * 10)
    c = config(images, cells, **{"eval.max_images": 100}).to_dict()
    training, some = seeds.subsets(c, dataset, Classification)
    assert len(set(some.indices)) == 100
    assert np.bincount(labels[some.indices], minlength=10).min() > 0
    assert held_out or not set(some.indices) & set(training.indices)
    np.testing.assert_array_equal(
        some.indices, seeds.subsets(c, dataset, Classification)[1].indices
    )
    other = seeds.subsets({**c, "seed": 1}, dataset, Classification)[1]
    assert set(other.indices) != set(some.indices)
    c["eval"]["max_images"] = -1
    _, whole = seeds.subsets(c, dataset, Classification)
    assert set(some.indices) < set(whole.indices)
    assert len(whole.indices) == (1000 if held_out else 500)


def test_precise_statistics_are_what_an_evaluation_uses(images, cells, tmp_path):
    """After one step running statistics are far off; precise ones are those of the images."""
    changes = {"train.max_steps": 1, "weights.learning_rate": 1e-9}
    running, precise = (
        train.train(
            config(images, cells, **changes, **{"train.precise_bn_images": count}),
            str(tmp_path / str(count)),
        )["loss"][0]
        for count in (0, 32)
    )
    c, state = config(images, cells).to_dict(), _newest_state(tmp_path / "0")
    dataset = open_dataset(c["dataset"])
    task = registry.create(c, dataset)
    held_out = halves(len(dataset.splits["train"]), 0)[1]
    feed = Feed(Batches.of({**c, "eval": {"batch_size": 32}}), dataset, task, sharding.data_mesh())
    (batch,) = feed.evaluation(dataset.splits["train"], held_out, place=False)
    examples = task.examples(jax.random.key(0), batch, train=False)
    variables = {
        name: jax.tree.map(lambda v: v[0], state[name]) for name in ("params", "batch_stats")
    }
    (outputs, _), _ = build_network(c, task).apply(
        variables, examples.inputs, train=True, mutable=["batch_stats"]
    )
    sums = task.score(outputs, examples, train=False)
    expected = float(sums["loss"] / sums["count"])
    assert precise == pytest.approx(expected, rel=0.03)
    assert abs(running - expected) > 5 * abs(precise - expected)
