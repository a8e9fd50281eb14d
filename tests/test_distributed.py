"""Runs of several processes on this machine: equal, bounded, preempted together, elastic."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import cv2
import jax
import numpy as np
import pytest

from tests import tiny
from tests.conftest import ROOT
from tests.test_runs import CONFIG, finish, rows, wait_for
from unnas_jax import distributed, sharding
from unnas_jax.data import pipeline
from unnas_jax.errors import UserError

STEPS = 12


def start(
    count: int, workdir: pathlib.Path, images: pathlib.Path, *flags: str
) -> list[subprocess.Popen]:
    """Starts the processes of a run, with one device each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = dict(os.environ, XLA_FLAGS="--xla_backend_optimization_level=0")
    command = [sys.executable, "-m", "tests.process", f"--config={CONFIG}", f"--workdir={workdir}"]
    command += [f"--config.dataset.path={images}", "--config.workers=0"]
    # The paper's rate for the alphas: Adam at a high one doubles the smallest difference.
    command += ["--config.alphas.learning_rate=1.5e-4", "--config.train.epochs=3"]
    command += ["--config.log_every_steps=1", *flags]
    together = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}"]
    return [
        subprocess.Popen(
            command + ([*together, f"--process_id={number}"] if count > 1 else []),
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def losses(workdir: pathlib.Path) -> dict[int, tuple[float, float]]:
    """The losses of every step on both halves."""
    return {r["step"]: (r["loss"], r["alpha_loss"]) for r in rows(workdir) if r["kind"] == "train"}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(tiny.upright(64, 20)):
        cv2.imwrite(str(folder / f"{number:03d}.png"), image)
    return folder


def test_four_then_two_then_one_process_are_one_run(images, tmp_path):
    """A lost process, a preemption and two changes of the number of processes change nothing."""
    alone, workdir = tmp_path / "alone", tmp_path / "several"
    finish(*start(1, alone, images))

    # Four processes, of which one is lost behind a checkpoint: the others end, soon and in words.
    four = start(4, workdir, images)
    wait_for(four[0], lambda: max(losses(workdir), default=0) >= 4)
    four[2].kill()
    lost = time.monotonic()
    for process in four[:2] + four[3:]:
        words = finish(process, status=distributed.LOST)
        assert "lost the others" in words and "the same command" in words, words
        assert "Traceback" not in words
    assert time.monotonic() - lost < 60
    four[2].communicate()

    # Two continue. A signal to the second stops both after the same step, with the same alphas.
    reached = max(losses(workdir))
    two = start(2, workdir, images)
    wait_for(two[0], lambda: max(losses(workdir)) > reached)
    two[1].send_signal(signal.SIGTERM)
    log, silent = finish(two[0]), finish(two[1])
    assert "continuing at step 3" in log or "continuing at step 6" in log
    assert "images/s" not in silent
    ends = [np.load(workdir / f"alphas.{k}of2.npz") for k in range(2)]
    for name in ("step", "normal", "reduce"):
        np.testing.assert_array_equal(ends[0][name], ends[1][name])

    # One ends what four began, as if it had been alone from the start.
    log = finish(*start(1, workdir, images))
    if ends[0]["step"] < STEPS:  # Unless the signal came behind the last step.
        assert f"Stopped by a signal at step {ends[0]['step']}" in "".join(log) or (
            f"continuing at step {ends[0]['step']}" in log
        )
    with np.load(alone / "alphas.npz") as a, np.load(workdir / "alphas.npz") as b:
        np.testing.assert_array_equal(a["step"], b["step"])
        for name in ("normal", "reduce"):
            np.testing.assert_allclose(a[name], b[name], rtol=0, atol=2e-5)
            assert np.ptp(a[name][-1] - a[name][0]) > 1e-3
    # Other examples, or the same in another order, would have other losses at once.
    expected, found = losses(alone), losses(workdir)
    assert sorted(expected) == sorted(found) == list(range(1, STEPS + 1))
    for step in range(1, 5):
        np.testing.assert_allclose(found[step], expected[step], rtol=1e-4)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=0.05)


@pytest.mark.parametrize("count", [2, 4])
def test_the_rows_of_processes_make_the_batches_of_one(count):
    def indices(process: int, processes: int) -> np.ndarray:
        batches = pipeline.train_batches(
            tiny.dataset(32).splits["train"],
            np.arange(32),
            batch_size=8,
            crop=16,
            resize=18,
            train_crop="resize_random",
            seed=3,
            start_step=4,
            workers=0,
            apply_exif=False,
            process_index=process,
            process_count=processes,
        )
        try:
            return np.stack([next(batches)["index"] for _ in range(4)])
        finally:
            batches.close()

    shards = [indices(process, count) for process in range(count)]
    assert all(shard.shape == (4, 8 // count) for shard in shards)
    np.testing.assert_array_equal(np.concatenate(shards, axis=1), indices(0, 1))
    assert len(np.unique(np.concatenate(shards))) == 32  # Disjoint, and all of the epoch.


def test_every_process_has_its_rows_of_a_batch_whatever_the_order_of_devices():
    class Device:
        def __init__(self, id: int, process_index: int) -> None:
            self.id, self.process_index = id, process_index

    # As on a slice of 4x4 chips with 2x2 a host: ids row by row, hosts block by block.
    devices = [Device(4 * y + x, 2 * (y // 2) + x // 2) for y in range(4) for x in range(4)]
    ordered = sharding.process_by_process(devices)
    assert [device.process_index for device in ordered] == np.repeat(range(4), 4).tolist()
    assert sorted(device.id for device in ordered) == list(range(16))


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, False),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8"}, False),  # A batch script, not a task.
        ({"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "8", "SLURM_PROCID": "3"}, True),
        ({"SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
    ],
)
def test_only_clusters_with_several_tasks_are_joined(environment, expected):
    assert distributed.in_cluster(environment) is expected


@pytest.mark.parametrize(
    "arguments, word",
    [
        (("h:1", 2, None), "--process_id"),
        (("h:1", 2, 2), "--process_id=2"),
        (("h", 2, 0), "HOST:PORT"),
        ((None, None, 1), "--coordinator"),
    ],
)
def test_half_a_set_of_flags_is_refused(arguments, word):
    with pytest.raises(UserError, match=word):
        distributed.start(*arguments)
    assert not jax.distributed.is_initialized()
