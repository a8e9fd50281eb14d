"""Runs of several processes on this machine: equal, bounded, preempted together, elastic."""

import contextlib
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from tests import tiny
from tests.conftest import QUICK, ROOT
from tests.test_runs import CONFIG, finish, rows, wait_for
from unnas_jax.core import distributed, sharding
from unnas_jax.core.errors import UserError
from unnas_jax.data import pipeline

STEPS = 12


def free_port() -> str:
    """Below those that the system gives to whoever asks for any."""
    lowest = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        with socket.socket() as free, contextlib.suppress(OSError):
            port = random.randrange(lowest // 2, lowest)
            free.bind(("127.0.0.1", port))
            return str(port)


def start(
    count: int, workdir: pathlib.Path, images: pathlib.Path, *, held: bool = False
) -> list[subprocess.Popen]:
    """Starts the processes of a run, with one device each; if `held` the last one waits at once."""
    environment = dict(os.environ, XLA_FLAGS=QUICK)
    command = [sys.executable, "-m", "tests.process", f"--config={CONFIG}", f"--workdir={workdir}"]
    command += [f"--config.dataset.path={images}", "--config.workers=0"]
    # The paper's rate for the alphas: Adam at a high one doubles the smallest difference.
    command += ["--config.alphas.learning_rate=1.5e-4", "--config.train.epochs=3"]
    command += ["--config.log_every_steps=1"]
    together = [f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={count}"]
    return [
        subprocess.Popen(
            command + ([*together, f"--process_id={number}"] if count > 1 else []),
            cwd=ROOT,
            env=environment | ({"HELD": "1"} if held and number == count - 1 else {}),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def losses(workdir: pathlib.Path) -> dict[int, tuple[float, float]]:
    """The losses of every step on both halves."""
    return {r["step"]: (r["loss"], r["alpha_loss"]) for r in rows(workdir) if r["kind"] == "train"}


def preempted(
    count: int, workdir: pathlib.Path, images: pathlib.Path, number: int = signal.SIGTERM
) -> tuple[int, str]:
    """Processes of which the last gets a signal: the step that all stopped at, and the log."""
    reached = max(losses(workdir), default=0)
    # So that the run has not ended before; of a SIGTERM only JAX's service knows.
    several = start(count, workdir, images, held=number == signal.SIGINT)
    wait_for(several[0], lambda: max(losses(workdir), default=0) > reached)
    several[-1].send_signal(number)
    log, *silent = [finish(process) for process in several]
    assert not any("images/s" in words or "Passed over" in words for words in silent)
    ends = [np.load(workdir / f"alphas.{k}of{count}.npz") for k in range(count)]
    for end in ends[1:]:
        for name in ("step", "normal", "reduce"):
            np.testing.assert_array_equal(end[name], ends[0][name])
    step = int(ends[0]["step"])
    if step < STEPS:  # Unless the signal came behind the last step.
        assert f"Stopped by a signal at step {step}" in log
    assert (workdir / "checkpoints" / str(step)).is_dir()
    return step, log


def lost(count: int, workdir: pathlib.Path, images: pathlib.Path) -> None:
    """Processes of which one is killed behind a checkpoint: the others end, soon and in words."""
    several = start(count, workdir, images)
    wait_for(several[0], lambda: max(losses(workdir), default=0) >= 4)
    gone = several.pop()
    gone.kill()
    killed = time.monotonic()
    gone.communicate()
    for process in several:
        words = finish(process, status=distributed.LOST)
        assert "lost the others" in words and "the same command" in words, words
        assert "Traceback" not in words
    assert time.monotonic() - killed < 240  # JAX's own limits add up to more.


def assert_one_run(found: pathlib.Path, expected: pathlib.Path) -> None:
    """Two workdirs hold the same run up to rounding."""
    with np.load(expected / "alphas.npz") as a, np.load(found / "alphas.npz") as b:
        np.testing.assert_array_equal(a["step"], b["step"])
        for name in ("normal", "reduce"):
            np.testing.assert_allclose(a[name][:2], b[name][:2], rtol=0, atol=1e-5)
            # Rounding grows where a ReLU flips, but not to one step of Adam.
            np.testing.assert_allclose(a[name], b[name], rtol=0, atol=1e-4)
            assert np.ptp(a[name][-1] - a[name][0]) > 1e-3
    a, b = losses(expected), losses(found)
    assert sorted(a) == sorted(b) == list(range(1, STEPS + 1))
    # Other examples, or the same in another order, would have other losses at once.
    np.testing.assert_allclose([b[k] for k in range(1, 5)], [a[k] for k in range(1, 5)], rtol=1e-4)
    np.testing.assert_allclose([b[k] for k in a], list(a.values()), rtol=0.05)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, images) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("runs") / "alone"
    finish(*start(1, workdir, images))
    return workdir


def test_two_processes_stop_together_and_one_goes_on(alone, images, tmp_path):
    (images / "notes.txt").touch()  # What is said about a folder is said once.
    # It becomes a SIGTERM, which is what JAX's service shares.
    step, log = preempted(2, tmp_path / "w", images, signal.SIGINT)
    assert "Passed over files that are no images by their endings: 1 .txt" in log
    log = finish(*start(1, tmp_path / "w", images))
    assert step == STEPS or f"continuing at step {step}" in log
    assert_one_run(tmp_path / "w", alone)


# Every process compiles, which takes minutes of CPU.
@pytest.mark.skipif("UNNAS_LONG_TESTS" not in os.environ, reason="set UNNAS_LONG_TESTS=1")
def test_four_then_two_then_one_process_are_one_run(alone, images, tmp_path):
    lost(4, tmp_path / "w", images)
    step, log = preempted(2, tmp_path / "w", images)
    assert re.search("continuing at step [36]", log)
    log = finish(*start(1, tmp_path / "w", images))
    assert step == STEPS or f"continuing at step {step}" in log
    assert_one_run(tmp_path / "w", alone)


_LOOP = """
import itertools, sys
import jax, numpy as np
from unnas_jax.core import distributed, sharding

distributed.start("127.0.0.1:" + sys.argv[1], 3, int(sys.argv[2]))
distributed.barrier("here")
add = jax.jit(lambda x: x.sum(), out_shardings=sharding.replicated(sharding.data_mesh()))
with distributed.bounded():
    for number in itertools.count():
        batch = sharding.to_devices({"x": np.ones(1, np.float32)}, sharding.data_mesh())
        assert float(add(batch["x"])) == 3.0
        if number == 0:
            print("step", flush=True)
"""


_ALONE = """
import sys
from unnas_jax.core import distributed, logs

logs.start()
distributed._MEETING_TIMEOUT_S = 3
distributed.start("127.0.0.1:" + sys.argv[1], 2, int(sys.argv[2]))
"""


@pytest.mark.parametrize("number", [0, 1])
def test_waiting_for_a_process_that_does_not_come_ends_in_words(number):
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, free_port(), str(number)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == distributed.LOST, done.stderr
    own = [line for line in done.stderr.splitlines() if "aiting for the other processes" in line]
    assert len(own) == 2 and all("3 s at most" in line for line in own)
    assert "--num_processes" in own[1] and "Traceback" not in done.stderr


def test_a_lost_process_ends_the_others_soon_and_in_words():
    # The first process, which has the service, gives the lost one less time to say its last.
    short = "distributed._GRACE_S = 10.0\ndistributed.start("
    command = [sys.executable, "-c", _LOOP.replace("distributed.start(", short), free_port()]
    environment = dict(os.environ, XLA_FLAGS="")
    several = [
        subprocess.Popen(
            [*command, str(number)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for process in several:
        assert any(line == "step\n" for line in process.stdout)  # After what Gloo says.
    several[1].kill()
    killed = time.monotonic()
    for process in several[::2]:
        words = finish(process, status=distributed.LOST)
        assert "lost the others" in words and "the same command" in words, words
        assert "Traceback" not in words
    assert time.monotonic() - killed < 240  # JAX's own limits add up to more.
    several[1].communicate()


_MISTAKE = (
    _LOOP.replace("import itertools, sys", "import itertools, sys, time")
    .replace(
        """with distributed.bounded():
""",
        """from unnas_jax.commands import command_line
from unnas_jax.core.errors import UserError
with command_line.user_errors() as outcome, distributed.bounded():
""",
    )
    .replace(
        """        batch =""",
        """        if number == 3 and jax.process_index() == int(sys.argv[3]):
            raise UserError("dataset: the image of record 7 cannot be decoded; remove it")
        batch =""",
    )
    + """
distributed.leave(outcome.status)
"""
).replace(
    "import itertools, sys, time",
    """import itertools, os, sys, time
ends = os._exit


def late(status):  # A busy machine lets a process wait with its last words said.
    time.sleep(1.5 if sys.argv[2] != "0" else 0)
    ends(status)


os._exit = late
""",
)


@pytest.mark.parametrize("guilty", [0, 2])
def test_a_mistake_that_one_process_sees_ends_all_with_its_words_and_status_2(guilty):
    command = [sys.executable, "-c", _MISTAKE, free_port()]
    several = [
        subprocess.Popen(
            [*command, str(number), str(guilty)],
            cwd=ROOT,
            env=dict(os.environ, XLA_FLAGS=""),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for number, process in enumerate(several):
        words = finish(process, status=2)
        lines = [line for line in words.splitlines() if line.startswith("unnas_jax: ")]
        (line,) = lines
        assert line.endswith("the image of record 7 cannot be decoded; remove it"), words
        assert (f"process {guilty}: " in line) == (number != guilty)
        assert "Traceback" not in words and "lost the others" not in words


@pytest.mark.parametrize("count", [2, 4])
def test_the_rows_of_processes_make_the_batches_of_one(count):
    def images(process: int, processes: int) -> np.ndarray:
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
            return np.stack([next(batches)["image"] for _ in range(4)])
        finally:
            batches.close()

    shards = [images(process, count) for process in range(count)]
    assert all(shard.shape == (4, 8 // count, 16, 16, 3) for shard in shards)
    rows = np.concatenate(shards, axis=1)
    np.testing.assert_array_equal(rows, images(0, 1))
    assert len(np.unique(rows.reshape(32, -1), axis=0)) == 32  # Disjoint, and all of the epoch.


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
