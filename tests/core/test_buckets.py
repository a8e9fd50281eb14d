"""Addresses gs:// for workdirs, datasets and genotypes, on a server in memory."""

import contextlib
import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests import object_store, tiny
from tests.conftest import ROOT
from tests.data.test_tfds_source import CIFAR, labelled, prepare
from unnas_jax.commands import command_line
from unnas_jax.config import schema as config_lib
from unnas_jax.core import buckets, files
from unnas_jax.core.errors import UserError
from unnas_jax.data import open_dataset
from unnas_jax.runs import checkpoint, hold, search, workdir
from unnas_jax.spaces.darts import published

pytestmark = pytest.mark.usefixtures("on_one_device")


@pytest.fixture(scope="module")
def objects():
    """The objects of the bucket, by name."""
    with object_store.serve() as (environment, objects), pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        import gcsfs  # It reads some of the environment when it is imported.

        yield objects
        gcsfs.GCSFileSystem.clear_instance_cache()


def upload(objects, name, directory):
    for path in pathlib.Path(directory).rglob("*"):
        if path.is_file():
            objects[f"{name}/{path.relative_to(directory)}"] = (path.read_bytes(), 1)


def test_a_search_in_a_bucket_is_saved_and_continues(objects, images):
    config = tiny.quick(epochs=2, batch_size=8)
    config.dataset.update(name="folder", path=str(images))
    config.workers = 0
    address = "gs://bucket/runs/parts"
    config.train.max_steps = 4
    first = search.search(config, address)
    at_first = set(objects)
    with contextlib.closing(ocp.CheckpointManager(f"{address}/checkpoints")) as manager:
        saved = manager.restore(manager.latest_step()).state
    for kind, alphas in first.alphas.items():
        np.testing.assert_array_equal(saved["alphas"][kind], alphas)

    config.train.max_steps = -1
    search.search(config, address)
    assert {"runs/parts/config.json", "runs/parts/report.html"} < at_first < set(objects)
    rows = map(json.loads, objects["runs/parts/metrics.jsonl"][0].decode().splitlines())
    steps = [(row["kind"], row["step"]) for row in rows]
    # Of both parts, and nothing twice.
    assert [step for kind, step in steps if kind == "start"] == [0, 4]
    assert [step for kind, step in steps if kind == "train"] == [4, 8]
    with np.load(io.BytesIO(objects["runs/parts/alphas.npz"][0])) as history:
        assert history["step"].tolist() == [0, 4, 8]
        np.testing.assert_array_equal(history["normal"][1], saved["alphas"]["normal"])
    document = json.loads(objects["runs/parts/genotype.json"][0])
    assert document["finished"] and document["step"] == 8
    assert published.resolve(address).as_dict() == document["genotype"]
    assert published.resolve(f"{address}/genotype.json").as_dict() == document["genotype"]

    config.seed = 1
    with pytest.raises(UserError, match=f"workdir {address} belongs to another config"):
        search.search(config, address)


@pytest.mark.parametrize("name, finished", [("done", True), ("half", False), ("absent", None)])
def test_launch_scripts_see_whether_a_run_in_a_bucket_has_finished(objects, name, finished):
    if finished is not None:
        upload = {"config": {"experiment": "search"}, "genotype": {"finished": finished}}
        for file, content in upload.items():
            objects[f"runs/{name}/{file}.json"] = (json.dumps(content).encode(), 1)
    command = ["bash", "launch/finished.sh", f"gs://bucket/runs/{name}"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "UNNAS_VENV": sys.prefix})
    assert done.returncode == (0 if finished else 75)


def test_a_damaged_checkpoint_in_a_bucket_is_set_aside(objects):
    with workdir.opened("gs://bucket/runs/damaged") as place:
        checkpoints = checkpoint.Checkpoints(place.checkpoints)
        for step in (1, 2):
            checkpoints.save(step, {"x": np.arange(4.0) + step}, {"step": step})
        checkpoints.wait()
        for name in list(objects):
            if name.startswith("runs/damaged/checkpoints/2/state/") and "manifest" in name:
                objects[name] = (b"?", 1)
        state, position = checkpoints.restore({"x": np.zeros(4)})
        checkpoints.close()
    assert position["step"] == 1
    np.testing.assert_array_equal(state["x"], [1.0, 2.0, 3.0, 4.0])
    assert any(name.startswith("runs/damaged/checkpoints_damaged/2.0/") for name in objects)
    assert not any(name.startswith("runs/damaged/checkpoints/2/") for name in objects)


def test_files_are_published_once_and_fetched(objects):
    address = "gs://bucket/runs/files"
    with workdir.opened(address) as place:
        files.write_json(os.path.join(place.path, "a.json"), {"x": 1})
        os.makedirs(os.path.join(place.path, "board"))
        pathlib.Path(place.path, "board", "b").write_bytes(b"12")
        place.publish()
        before = dict(objects)
        place.publish()
        assert objects == before
        files.write_json(os.path.join(place.path, "a.json"), {"x": 2})
    assert objects["runs/files/board/b"] == before["runs/files/board/b"]
    objects["runs/files/checkpoints/1/large"] = (b"", 1)
    with workdir.opened(address, write=False) as place:
        assert files.read_json(os.path.join(place.path, "a.json")) == {"x": 2}
        assert sorted(os.listdir(place.path)) == ["a.json", "board"]
        pathlib.Path(place.path, "a.json").write_text("not by a process that does not write")
    assert json.loads(objects["runs/files/a.json"][0]) == {"x": 2}


def test_an_error_publishes_what_there_is_and_passes(objects):
    with (
        pytest.raises(ZeroDivisionError),
        workdir.opened("gs://bucket/runs/error") as place,
    ):
        pathlib.Path(place.path, "log").write_text("so far")
        raise ZeroDivisionError
    assert objects["runs/error/log"][0] == b"so far"


@pytest.mark.parametrize("when", ["in the middle", "at the end"])
def test_a_bucket_out_of_reach_interrupts_a_run_that_had_reached_it(objects, monkeypatch, when):
    def out_of_reach(self):
        raise OSError("no route to host")

    with (
        command_line.user_errors() as outcome,
        workdir.opened("gs://bucket/runs/lost") as place,
    ):
        place.publish()
        monkeypatch.setattr(buckets.Mirror, "publish", out_of_reach)
        if when == "in the middle":
            place.publish()
            raise AssertionError("went on")
    assert outcome.status == 75  # After which the launch scripts start again.


def test_a_dataset_in_a_bucket(objects, tmp_path):
    prepare(tmp_path, "cifar10", CIFAR, labelled)
    upload(objects, "data", tmp_path)
    expected = open_dataset({"name": "cifar10", "data_dir": str(tmp_path)}).splits["train"]
    records = open_dataset({"name": "cifar10", "data_dir": "gs://bucket/data"}).splits["train"]
    assert [records[i] for i in range(4)] == [expected[i] for i in range(4)]
    assert list(records.names()) == list(expected.names())
    with pytest.raises(UserError, match="is not prepared in gs://bucket/data"):
        open_dataset({"name": "imagenet2012", "data_dir": "gs://bucket/data"})


@pytest.mark.parametrize("address", ["s3://bucket/x", "gs://", "gs:///"])
def test_other_addresses_are_refused(address):
    with pytest.raises(UserError, match="use gs://BUCKET/NAME"):
        buckets.open_path("workdir", address)


def test_a_missing_client_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"workdir gs://b/x.*pip install 'unnas_jax\[gcs\]'"):
        buckets.open_path("workdir", "gs://b/x")


def test_a_bucket_that_is_not_there_is_named_before_anything_long(objects):
    config = config_lib.search().to_dict()
    with (
        pytest.raises(UserError, match=r"workdir gs://other/x: cannot be reached.*rights"),
        workdir.opened("gs://other/x") as place,
    ):
        workdir.claim(place, config)
        raise AssertionError("went on")
    with pytest.raises(UserError, match=r"gs://other/g\.json: cannot be reached"):
        files.read_json("gs://other/g.json")


def test_a_workdir_in_a_bucket_is_one_runs(objects, monkeypatch):
    monkeypatch.setattr(hold, "_BEAT_S", 0.05)
    monkeypatch.setattr(hold, "_LOOK_S", 0.2)
    monkeypatch.setattr(hold, "_WATCH_S", 600.0)  # A beat can be late; one is enough.
    place = workdir.Workdir("gs://bucket/runs/one", "", "", lambda: None)
    with workdir.alone(place):
        assert "runs/one/running.json" in objects
        with pytest.raises(UserError, match=f"in use by process {os.getpid()} on host"):
            workdir.alone(place).__enter__()
    assert "runs/one/running.json" not in objects
