"""Preparing a dataset: complete, in order, in parallel, after a kill, and never half."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import tensorflow_datasets as tfds

from tests.data import numbered
from unnas_jax.core.errors import UserError
from unnas_jax.data import jobs, shards


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_text("")
    return path


def values(data_dir):
    builder = tfds.builder("numbered", data_dir=data_dir)
    return [int(e["value"]) for e in builder.as_data_source("train")]


def contents(data_dir):
    """Every file but the report, which tells the time."""
    root = pathlib.Path(data_dir, "numbered", "1.0.0")
    return {
        path.name: path.read_bytes()
        for path in sorted(root.iterdir())
        if path.name != shards.REPORT
    }


def test_everything_in_order(tmp_path, source):
    report = numbered.prepare(source, tmp_path, bad=(3, 17))
    assert values(tmp_path) == [k for k in range(40) if k not in (3, 17)]
    assert report["examples"] == {"train": 38}
    rejected = [(p["split"], p["name"], p["reason"]) for p in report["rejected"]]
    assert rejected == [("train", "x", "is odd")] * 4 + [
        ("train", "0003", "is bad"),
        ("train", "0017", "is bad"),
    ]
    assert [p["name"] for p in report["duplicates"]] == ["0009", "0019", "0029", "0039"]
    assert [p["name"] for p in report["remarks"]] == ["0012"]
    assert report["notes"] == ["a note", "train: 38 examples; 41 are published"]
    root = tmp_path / "numbered" / "1.0.0"
    names = (root / "names-train.txt").read_text().split()
    assert names == [f"{k:04d}" for k in range(40) if k not in (3, 17)]
    assert sorted(os.listdir(root)) == sorted(
        [f"numbered-train.array_record-{k:05d}-of-00008" for k in range(8)]
        + ["dataset_info.json", "features.json", "names-train.txt", "report.json"]
    )


def test_a_shard_of_bad_examples_alone(tmp_path, source):
    numbered.prepare(source, tmp_path, bad=range(10, 15))
    assert values(tmp_path) == [*range(10), *range(15, 40)]


def test_processes_change_nothing(tmp_path, source):
    """They list, from 50 groups on, and write."""
    numbered.prepare(source, tmp_path / "a", groups=60, count=1, workers=0)
    numbered.prepare(source, tmp_path / "b", groups=60, count=1, workers=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(values(tmp_path / "a")) == 60


def test_what_is_prepared_is_left_alone(tmp_path, source):
    report = numbered.prepare(source, tmp_path, bad=(3,))
    before = contents(tmp_path)
    assert numbered.prepare(source, tmp_path) == report
    assert contents(tmp_path) == before


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_goes_on(tmp_path, source, workers):
    numbered.prepare(source, tmp_path / "whole", bad=(3,))
    data_dir = tmp_path / "killed"
    options = {"source": str(source), "data_dir": str(data_dir), "bad": [3], "workers": workers}
    environment = os.environ | {
        "NUMBERED": json.dumps(options | {"held": 20}),  # Of 40: it stands still in the middle.
        "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.data.numbered"], env=environment, start_new_session=True
    )
    staging = data_dir / "numbered" / "1.0.0.incomplete"
    deadline = time.monotonic() + 600
    # A shard is complete with what is known of it.
    while len(list(staging.glob("index/*.written.json"))) < 4 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # Its own processes end with it, or they would go on to write.
    while _group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _group(process.pid)
    known = [
        path.name.removesuffix(".written.json") for path in staging.glob("index/*.written.json")
    ]
    kept = {staging / name: (staging / name).stat().st_ino for name in known}
    assert len(kept) == 4
    assert not (data_dir / "numbered" / "1.0.0").exists()
    (staging / ".numbered-train.array_record-00007-of-00008.1").write_bytes(b"half")
    numbered.prepare(source, data_dir, bad=(3,))
    assert contents(data_dir) == contents(tmp_path / "whole")
    final = data_dir / "numbered" / "1.0.0"
    assert {path.name: (final / path.name).stat().st_ino for path in kept} == {
        path.name: inode for path, inode in kept.items()
    }
    assert not staging.exists()


def _group(leader):
    """The living processes of a session."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(path.parent.name)
    return found


def stop_early(source, data_dir, **options):
    """A run that ends in the middle."""
    recipe = numbered.recipe(source, **options)

    def interrupt(name, value):
        if value == 20:
            raise KeyboardInterrupt
        return recipe.make(name, value)

    broken = shards.Recipe(**{**vars(recipe), "make": interrupt})
    with pytest.raises(KeyboardInterrupt):
        shards.prepare(broken, str(data_dir), 0, shard_bytes=500)


def test_an_interrupted_run_leaves_no_half_file_and_keeps_the_whole_ones(tmp_path, source):
    stop_early(source, tmp_path)
    staging = tmp_path / "numbered" / "1.0.0.incomplete"
    assert sorted(os.listdir(staging)) == [
        "index",
        *(f"numbered-train.array_record-{k:05d}-of-00008" for k in range(4)),
        "plan.json",
    ]
    numbered.prepare(source, tmp_path)
    assert values(tmp_path) == list(range(40))


def test_other_sources_than_at_the_beginning_are_refused(tmp_path, source):
    stop_early(source, tmp_path)
    with pytest.raises(UserError, match=r"1.0.0.incomplete: was begun from other files .* delete"):
        numbered.prepare(source, tmp_path, count=9)
    source.write_text("changed")
    with pytest.raises(UserError, match="was begun from other files"):
        numbered.prepare(source, tmp_path)


def test_two_runs_at_once_are_refused(tmp_path, source, monkeypatch):
    def second(*arguments):
        with pytest.raises(UserError, match="another run is preparing this"):
            numbered.prepare(source, tmp_path, count=10)
        return shards.Example({"file_name": "a", "value": 1})

    recipe = shards.Recipe(**{**vars(numbered.recipe(source, 1, 1)), "make": second})
    shards.prepare(recipe, str(tmp_path), 0)
    assert values(tmp_path) == [1]


def test_what_another_process_has_prepared_meanwhile_is_not_prepared_again(
    tmp_path, source, monkeypatch
):
    locked, made = shards._locked, []

    @contextlib.contextmanager
    def after_another(path):
        monkeypatch.setattr(shards, "_locked", locked)
        numbered.prepare(source, tmp_path)
        with locked(path):
            yield

    monkeypatch.setattr(shards, "_locked", after_another)
    recipe = numbered.recipe(source)
    again = shards.Recipe(**{**vars(recipe), "make": lambda name, value: made.append(name)})
    report = shards.prepare(again, str(tmp_path), 0, shard_bytes=500)
    assert report["examples"] == {"train": 40} and not made
    assert values(tmp_path) == list(range(40))


def test_a_directory_that_cannot_be_written_to(tmp_path, source):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--data_dir: cannot write or lock"):
        numbered.prepare(source, tmp_path / "file")


@pytest.mark.parametrize("workers", [0, 2])
def test_progress_within_a_shard(tmp_path, source, workers, capsys, monkeypatch):
    """Two shards of 20 examples: more is said than two numbers."""
    monkeypatch.setattr(jobs, "_PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(jobs, "_POLL_SECONDS", 0.05)
    said, show = tmp_path / "said", jobs.Progress._show
    said.write_text("")

    def noted(self, *ends):
        show(self, *ends)
        with open(said, "a") as file:
            file.write("-")

    monkeypatch.setattr(jobs.Progress, "_show", noted)
    # Processes wait within the shards until somebody has looked.
    recipe = numbered.recipe(source, said=str(said) if workers else None)
    shards.prepare(recipe, str(tmp_path), workers, shard_bytes=2000)
    lines = [line for line in capsys.readouterr().err.splitlines() if "preparing: " in line]
    done = [int(line.split()[1]) for line in lines]
    assert done == sorted(done) and done[-1] == 40
    assert len({number for number in done if number % 20}) >= 2


def test_shards_are_not_too_many(tmp_path, source, monkeypatch):
    monkeypatch.setattr(shards, "MAX_SHARDS", 3)
    numbered.prepare(source, tmp_path)
    assert len(list((tmp_path / "numbered" / "1.0.0").glob("*array_record*"))) == 3
    assert values(tmp_path) == list(range(40))
