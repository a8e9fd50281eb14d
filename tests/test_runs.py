"""Whole runs of main.py as a user starts them: outputs, kills, signals, mistakes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import ml_collections
import numpy as np
import pytest

from tests.configs import tiny
from tests.conftest import QUICK, ROOT
from unnas_jax import commands
from unnas_jax.commands import run
from unnas_jax.core.errors import Interruption, UserError
from unnas_jax.runs.search import search

CONFIG = "tests/configs/tiny.py"


def main(held: int | str | None) -> list[str]:
    """The beginning of the command of a run, which `tests.held` may hold somewhere."""
    return [sys.executable, *(["main.py"] if held is None else ["-m", "tests.held", str(held)])]


def start(
    workdir: pathlib.Path, images: pathlib.Path, *flags: str, held: int | str | None = None
) -> subprocess.Popen:
    # One device, so that a run is as quick as it can be.
    environment = dict(os.environ, XLA_FLAGS=QUICK)
    return subprocess.Popen(
        [*main(held), f"--config={CONFIG}", f"--workdir={workdir}"]
        + [f"--config.dataset.path={images}", *flags],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, status: int = 0) -> str:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == status, errors
    return errors


def wait_for(process: subprocess.Popen, condition) -> None:
    """Returns when the condition holds; fails if the run ends or a long time passes before."""
    end = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.002)


def rows(workdir: pathlib.Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def steps(workdir: pathlib.Path) -> list[int]:
    return [row["step"] for row in rows(workdir) if row["kind"] == "train"]


def losses(workdir: pathlib.Path) -> list[tuple]:
    """What a run measured, without what a clock measured."""
    return [
        (row["kind"], row["step"], row["loss"], row["accuracy"])
        for row in rows(workdir)
        if row["kind"] in ("train", "validation")
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, images) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    log = finish(start(workdir, images))
    assert "images/s" in log and "left" in log and "Finished" in log
    return workdir


def test_a_run_leaves_what_the_readme_lists(uninterrupted):
    found = {path.name for path in uninterrupted.iterdir()}
    assert found >= {
        "config.json",
        "genotype.json",
        "metrics.jsonl",
        "tensorboard",
        "alphas.npz",
        "cells.svg",
        "cells.png",
        "alphas.png",
        "curves.png",
        "report.html",
        "checkpoints",
    }
    genotype = json.loads((uninterrupted / "genotype.json").read_text())
    assert genotype["schema"] == "unnas_jax.genotype/1"
    assert (genotype["dataset"], genotype["task"], genotype["seed"]) == ("folder", "rotation", 0)
    assert genotype["finished"] and genotype["step"] == 48
    assert {"jax", "flax", "unnas_jax"} <= set(genotype["versions"])
    with np.load(uninterrupted / "alphas.npz") as alphas:
        assert alphas["step"].tolist() == list(range(0, 49, 4))
        weights = np.exp(alphas["normal"][-1])
        weights /= weights.sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(weights, genotype["alphas_softmax"]["normal"], atol=1e-6)
    assert list((uninterrupted / "tensorboard").glob("events*"))


def test_the_documented_three_lines_restore_a_checkpoint(uninterrupted):
    import orbax.checkpoint as ocp

    manager = ocp.CheckpointManager(uninterrupted / "checkpoints")
    state = manager.restore(manager.latest_step()).state
    with np.load(uninterrupted / "alphas.npz") as alphas:
        np.testing.assert_array_equal(state["alphas"]["normal"], alphas["normal"][-1])
    manager.close()


def test_killed_runs_end_in_bitwise_the_same_alphas(uninterrupted, images, tmp_path):
    workdir = tmp_path / "killed"

    # In the middle of an epoch, a step after a checkpoint.
    checkpoints = workdir / "checkpoints"
    process = start(workdir, images, held=9)
    wait_for(process, lambda: 9 in steps(workdir) and (checkpoints / "8").exists())
    process.kill()
    process.communicate()
    # While a checkpoint is being written.
    process = start(workdir, images, held="saving")
    wait_for(process, lambda: any("tmp" in p.name for p in checkpoints.iterdir()))
    process.kill()
    process.communicate()
    assert max(steps(workdir)) < 15
    # A polite stop saves the step that it stopped at.
    process = start(workdir, images, held=15)
    wait_for(process, lambda: 15 in steps(workdir))
    process.send_signal(signal.SIGTERM)
    log = finish(process)
    assert "Stopped by a signal" in log
    log = finish(start(workdir, images))
    assert "continuing at step" in log

    with np.load(uninterrupted / "alphas.npz") as a, np.load(workdir / "alphas.npz") as b:
        for name in ("step", "normal", "reduce"):
            np.testing.assert_array_equal(a[name], b[name])
    assert [row for row in losses(workdir) if row[0] == "validation"] == [
        row for row in losses(uninterrupted) if row[0] == "validation"
    ]
    assert len(steps(workdir)) == len(set(steps(workdir)))


def config_of(images: pathlib.Path) -> ml_collections.ConfigDict:
    """That of `start`, for a run in this process."""
    config = tiny.get_config()
    config.dataset.path = str(images)
    return config


def test_a_finished_run_started_again_changes_nothing(uninterrupted, images):
    before = losses(uninterrupted)
    search(config_of(images), str(uninterrupted))
    assert losses(uninterrupted) == before


def test_a_workdir_of_another_config_is_refused(uninterrupted, images):
    before = (uninterrupted / "config.json").read_text()
    config = config_of(images)
    config.seed = 1
    with pytest.raises(UserError, match=r"belongs to another config \(seed: 0 -> 1\)"):
        search(config, str(uninterrupted))
    assert (uninterrupted / "config.json").read_text() == before


def _receives(process: subprocess.Popen, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_a_signal_while_it_imports_ends_it_in_order(images, tmp_path):
    process = start(tmp_path / "w", images)
    wait_for(process, lambda: _receives(process, signal.SIGTERM))
    process.send_signal(signal.SIGTERM)
    error = finish(process)
    assert "the same command continues" in error and "Traceback" not in error


def test_one_run_has_a_workdir_and_ctrl_c_stops_it(images, tmp_path):
    workdir = tmp_path / "w"
    process = start(workdir, images, held=3)
    wait_for(process, lambda: steps(workdir))
    error = finish(start(workdir, images), status=2)
    assert f"in use by process {process.pid} on host {os.uname().nodename}" in error
    assert "Searching on" not in error and "Traceback" not in error
    process.send_signal(signal.SIGINT)
    log = finish(process)
    assert "Stopped by a signal" in log and "Traceback" not in log
    assert (workdir / "checkpoints" / str(max(steps(workdir)))).is_dir()


def test_a_workdir_that_is_removed_ends_the_run_in_one_line(images, tmp_path):
    workdir = tmp_path / "w"
    process = start(workdir, images, "--config.train.epochs=100000")
    wait_for(process, lambda: steps(workdir))
    workdir.rename(tmp_path / "moved")  # In one step, unlike removing it.
    error = finish(process, status=2)
    assert "was removed while the run wrote to it" in error and "Traceback" not in error


def test_a_platform_that_is_not_there_is_one_line(images, tmp_path):
    done = subprocess.run(
        [sys.executable, "main.py", f"--config={CONFIG}", f"--workdir={tmp_path / 'w'}"]
        + [f"--config.dataset.path={images}"],
        cwd=ROOT,
        env=dict(os.environ, JAX_PLATFORMS="nothing"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "JAX cannot start on this machine" in done.stderr and "'nothing'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "reason, kind, remedy",
    [
        ("UNKNOWN: no such device", UserError, "set JAX_PLATFORMS=cpu"),
        ("ABORTED: The TPU is already in use by process 7", Interruption, "free the device"),
        ("INTERNAL: Too many open files", Interruption, "ulimit -n"),
    ],
)
def test_why_jax_cannot_start_says_whether_to_try_again(
    reason: str, kind: type[Exception], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError(f"Unable to initialize backend 'tpu': {reason}")

    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(kind, match=f"{reason}.*{remedy}"):
        run._start_jax()


def test_too_little_memory_to_import_is_one_line(images, tmp_path):
    done = subprocess.run(
        ["bash", "-c", f"ulimit -v 3000000; exec {sys.executable} main.py --config={CONFIG}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "imports alone need" in done.stderr


def test_a_mistake_on_the_command_line_ends_in_one_line(images, tmp_path):
    error = finish(start(tmp_path / "w", images, "--config.network.widht=8"), status=2)
    own = [line for line in error.splitlines() if line.startswith("unnas_jax: ")]
    assert len(own) == 1 and "widht" in own[0] and "Traceback" not in error
    assert not (tmp_path / "w").exists()


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # Of ml_collections.
@pytest.mark.parametrize(
    "flags, words",
    [
        (["--config.network.width=broad"], ["width", "broad"]),
        (["--config.task.name=rotate"], ["task.name", "rotate", "rotation"]),
        (["--config=configs/absent.py"], ["configs/absent.py"]),
    ],
)
def test_mistakes_on_the_command_line_are_named(flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    given = [f"--config={CONFIG}", f"--workdir={tmp_path / 'w'}", *flags]
    assert commands.main(given) == 2
    error = capsys.readouterr().err
    assert error.startswith("unnas_jax: ") and error.count("\n") == 1
    assert all(word in error for word in words), error
    assert not (tmp_path / "w").exists()
