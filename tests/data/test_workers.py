"""The processes that decode: shared by all streams, and clear about what ends them."""

import contextlib
import gc
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from tests.data.batches import Failing, Squares
from unnas_jax.core.errors import Interruption, UserError
from unnas_jax.data import shards, workers
from unnas_jax.runs import search, train
from unnas_jax.sweep import sample


def test_batches_come_in_order_whoever_makes_them():
    stream = workers.Stream(Squares(), range(3, 20), 2)
    batches = list(stream)
    stream.close()
    assert [batch["value"][0, 0, 0] for batch in batches] == [s**2 for s in range(3, 20)]
    assert all((batch["value"][1] == batch["value"][0] + 1).all() for batch in batches)
    assert batches[0]["value"].shape == (2, 3, 5) and batches[0]["value"].dtype == np.int32
    assert len({int(batch["process"][0]) for batch in batches}) == 2


def test_all_streams_of_a_run_share_the_processes():
    streams = [workers.Stream(Squares(), range(10), 2) for _ in range(4)]
    assert len(multiprocessing.active_children()) == 2
    shown = [next(stream)["value"][0, 0, 0] for _ in range(10) for stream in streams]
    assert shown == [s**2 for s in range(10) for _ in streams]
    for stream in streams:
        assert multiprocessing.active_children()
        stream.close()
    assert not multiprocessing.active_children()


def test_processes_end_with_streams_that_nobody_closes():
    assert len(list(workers.Stream(Squares(), range(3), 1))) == 3
    assert not multiprocessing.active_children()
    assert next(workers.Stream(Squares(), range(1000), 1))["value"][0, 0, 0] == 0
    gc.collect()
    assert not multiprocessing.active_children()


def test_what_cannot_be_sent_leaves_no_process():
    with pytest.raises(AttributeError):
        workers.Stream(lambda step: [], range(3), 1)
    assert not multiprocessing.active_children()


def test_a_stream_that_ends_early_leaves_the_others_alone():
    first, second = (workers.Stream(Squares(), range(1000), 2) for _ in range(2))
    next(first)
    first.close()
    assert [next(second)["value"][0, 0, 0] for _ in range(20)] == [s**2 for s in range(20)]
    second.close()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_small_dev_shm_does_not_matter():
    """By the processes' own maps and files: other programs have memory there, too."""
    stream = workers.Stream(Squares(), range(50), 1)
    kept = [next(stream) for _ in range(5)]
    for process in (os.getpid(), int(kept[0]["process"][0])):
        places = pathlib.Path(f"/proc/{process}/maps").read_text().split()
        for descriptor in pathlib.Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):  # Closed since.
                places.append(str(descriptor.readlink()))
        assert not [place for place in places if place.startswith("/dev/shm/psm_")]
    stream.close()
    assert len(kept) == 5


def test_a_killed_process_is_an_interruption_of_one_line():
    # Both of before: whether it can be opened after the kill depends on who is sooner.
    stream, other = (workers.Stream(Squares(), range(1000), 1) for _ in range(2))
    os.kill(int(next(stream)["process"][0]), signal.SIGKILL)
    for dead in (stream, other):
        with pytest.raises(Interruption, match="killed by signal 9.*memory.*workers") as caught:
            list(dead)
        assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()
    again = workers.Stream(Squares(), range(1000), 1)  # In processes of its own.
    assert next(again)["value"][0, 0, 0] == 0
    again.close()
    assert not multiprocessing.active_children()


def test_signals_to_the_whole_group_are_the_main_process_s_alone():
    stream = workers.Stream(Squares(), range(1000), 1)
    process = int(next(stream)["process"][0])
    for step, number in enumerate((signal.SIGINT, signal.SIGTERM), 1):
        os.kill(process, number)
        assert next(stream)["value"][0, 0, 0] == step**2
    stream.close()


def test_exceptions_come_back():
    stream = workers.Stream(Failing(), range(4), 1)
    for kind, words in (
        (UserError, "^it is so$"),
        (UserError, "config.workers: too little memory .*fewer"),
        (UserError, "config.workers: too little memory .*No space"),
        (RuntimeError, "KeyError: 'unforeseen'"),
    ):
        with pytest.raises(kind, match=words):
            next(stream)
    stream.close()


def test_a_script_without_a_main_guard_is_told_in_one_line(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(pathlib.Path(__file__).parents[2])!r})
        from tests.data.test_pipeline import Numbers
        from unnas_jax.data import pipeline, workers
        import numpy as np
        workers.refuse_unguarded_main()  # As search, train and sample begin.
        batches = pipeline.train_batches(
            Numbers(), np.arange(50), batch_size=8, crop=8, resize=12, train_crop="centre",
            apply_exif=False, seed=0, start_step=0, workers=2)
        others = pipeline.train_batches(
            Numbers(), np.arange(50), batch_size=8, crop=8, resize=12, train_crop="centre",
            apply_exif=False, seed=1, start_step=0, workers=2)
        try:
            next(batches)
        finally:
            others.close()
            batches.close()
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert 'if __name__ == "__main__":' in line and "config.workers=0" in line


@pytest.mark.parametrize("begin", [search.search, train.train, sample.sample, shards.prepare])
def test_whatever_starts_processes_refuses_first_to_run_in_one_of_them(begin, monkeypatch):
    def leave(status):
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SystemExit) as caught:
        begin(None, None)
    assert caught.value.code == workers.UNGUARDED


@pytest.mark.parametrize("cores, expected", [(1, 0), (2, 0), (4, 0), (6, 3), (16, 8), (96, 16)])
def test_workers_by_cores(monkeypatch, cores, expected):
    monkeypatch.setattr(workers, "cores", lambda: cores)
    assert workers.count(-1) == expected
    assert workers.count(3) == 3


def alive(pid):
    """Whether a process runs (a zombie does not)."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("end", ["exit", "kill"])
def test_workers_end_with_the_main_process(tmp_path, end):
    here = pathlib.Path(__file__).parent
    script = tmp_path / "main.py"
    script.write_text(
        textwrap.dedent(f"""
        import multiprocessing, sys, time
        sys.path[:0] = [{str(here)!r}, {str(here.parents[1])!r}]
        import numpy as np
        from test_pipeline import Numbers
        from unnas_jax.data import crops, pipeline
        if __name__ == "__main__":
            batches = pipeline.train_batches(
                Numbers(), np.arange(50), batch_size=8, crop=8, resize=12, train_crop="centre",
                apply_exif=False, seed=0, start_step=0, workers=1)
            next(batches)
            print(*[child.pid for child in multiprocessing.active_children()], flush=True)
            if {end!r} == "kill":
                time.sleep(600)
        """)
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    with process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 1
        if end == "kill":
            os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=600)
    deadline = time.monotonic() + 600
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [pid for pid in workers if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
