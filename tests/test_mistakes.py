"""Bad input, damage and failures in the middle of a search: one clear line, and nothing is lost."""

import json
import logging
import pathlib
import shutil

import numpy as np
import pytest

from tests import tiny
from tests.methods.made_once import made_once
from tests.test_runs import finish, start
from unnas_jax.core.errors import UserError
from unnas_jax.methods.darts import Darts
from unnas_jax.runs import checkpoint, search
from unnas_jax.runs import workdir as workdir_lib

pytestmark = pytest.mark.usefixtures("on_two_devices")


@pytest.fixture(scope="module", autouse=True)
def one_instance_for_a_setting():
    with made_once(Darts):
        yield


def config(images, max_steps=8, **changes):
    c = tiny.quick(epochs=12)
    c.dataset.update(name="folder", path=str(images))
    c.train.max_steps = max_steps
    c.checkpoint_every_steps = 3
    c.log_every_steps = 2
    c.update_from_flattened_dict(changes)
    return c


@pytest.fixture(scope="module")
def finished(on_two_devices, one_instance_for_a_setting, images, tmp_path_factory) -> pathlib.Path:
    """A search stopped at step 7, with checkpoints of the steps 6 and 7."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    search.search(config(images, max_steps=7), str(workdir))
    return workdir


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"train.batch_size": 7}, ["train.batch_size=7", "2 devices"]),
        ({"train.batch_size": 64}, ["train.batch_size=64", "32 images"]),
        ({"input.crop": 32, "input.resize": 32}, ["input.crop=32", "at most 20"]),
        ({"dataset.path": "/nowhere/at/all"}, ["/nowhere/at/all"]),
    ],
)
def test_what_only_data_and_devices_can_tell(changes, words, images, tmp_path):
    with pytest.raises(UserError) as error:
        search.search(config(images, **changes), str(tmp_path / "w"))
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)
    # The corrected config may have the same workdir.
    workdir_lib.claim(workdir_lib.local(str(tmp_path / "w")), config(images).to_dict())


@pytest.mark.usefixtures("no_reports")
def test_images_that_changed_since_are_refused_with_both_numbers(finished, images, tmp_path):
    """Another image would shift the halves: alphas would learn on what trained the weights."""
    workdir, moved = tmp_path / "w", tmp_path / "moved"
    shutil.copytree(finished, workdir)
    shutil.copytree(images, moved)
    shutil.copy(moved / "000.png", moved / "100.png")
    with pytest.raises(UserError) as error:
        search.search(config(f"{moved}/"), str(workdir))
    assert "64 (" in str(error.value) and "65 (" in str(error.value)
    (moved / "000.png").unlink()  # As many as before.
    with pytest.raises(UserError, match="not those that the run began with"):
        search.search(config(moved), str(workdir))
    # The same ones in another place are the same.
    (moved / "100.png").rename(moved / "000.png")
    assert int(search.search(config(f"{moved}/"), str(workdir)).step) == 8


def test_a_workdir_that_cannot_be_made(images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        search.search(config(images), str(tmp_path / "file" / "w"))


def test_what_a_killed_run_left_half_written_is_removed_by_who_saves(tmp_path):
    unfinished = tmp_path / "7.orbax-checkpoint-tmp"
    unfinished.mkdir()
    (unfinished / "state").write_text("half")
    checkpoints = checkpoint.Checkpoints(str(tmp_path))
    assert checkpoints.latest() is None
    assert unfinished.exists()  # Another process may be writing it.
    checkpoints.save(8, {"x": np.zeros(2)}, {"step": 8})
    checkpoints.close()
    assert not unfinished.exists()
    assert checkpoints.latest() == 8


def _damage(workdir: pathlib.Path, step: int) -> None:
    """Cuts every array file of a checkpoint in half."""
    for path in (workdir / "checkpoints" / str(step) / "state").rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2])


@pytest.mark.usefixtures("no_reports")
def test_a_damaged_checkpoint_falls_back_to_the_one_before(finished, images, tmp_path, caplog):
    sound, damaged = tmp_path / "sound", tmp_path / "damaged"
    for copy in (sound, damaged):
        shutil.copytree(finished, copy)
    _damage(damaged, 7)
    expected = search.search(config(images, max_steps=8), str(sound))
    with caplog.at_level("WARNING", "absl"):
        state = search.search(config(images, max_steps=8), str(damaged))
    assert "checkpoint of step 7 is damaged" in caplog.text
    for kind in ("normal", "reduce"):
        np.testing.assert_array_equal(state.alphas[kind], expected.alphas[kind])
    assert (damaged / "checkpoints_damaged" / "7.0").is_dir()


def test_when_every_checkpoint_is_damaged_nothing_is_overwritten(finished, images, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(finished, workdir)
    steps = checkpoint.Checkpoints(str(workdir / "checkpoints")).steps()
    for step in steps:
        _damage(workdir, step)
    with pytest.raises(UserError, match="none of the checkpoints"):
        search.search(config(images), str(workdir))
    kept = [path for path in (workdir / "checkpoints_damaged").iterdir() if path.is_dir()]
    assert len(kept) == len(steps)


@pytest.mark.usefixtures("no_reports")
def test_a_nan_stops_the_run_and_keeps_the_last_good_checkpoint(images, tmp_path):
    changes = {"weights.learning_rate": 1e12, "weights.clip_norm": 1e30}
    with pytest.raises(UserError, match="NaN or infinite at step") as error:
        search.search(config(images, max_steps=-1, **changes), str(tmp_path / "w"))
    kept = checkpoint.Checkpoints(str(tmp_path / "w" / "checkpoints")).latest()
    named = f"of step {kept} is kept" if kept else "there is no checkpoint yet"
    assert named in str(error.value)


def test_a_full_disk_ends_in_one_line(images, tmp_path):
    workdir = tmp_path / "w"
    workdir.mkdir()
    (workdir / "metrics.jsonl").symlink_to("/dev/full")
    error = finish(start(workdir, images), status=2)
    assert "the disk is full" in error and "Traceback" not in error
    assert "no checkpoint was saved yet" in error


def test_a_search_that_decides_nothing_says_so_and_damaged_alphas_do_not_block_it(
    images, tmp_path, caplog
):
    late = {"search.arch_start_epoch": 5.0}
    workdir, logger = tmp_path / "w", logging.getLogger("unnas_jax")
    logger.addHandler(caplog.handler)  # It may not pass on what it gets, see start_logging.
    try:
        search.search(config(images, max_steps=3, **late), str(workdir))
        assert "But no alpha has moved" in caplog.text
        document = json.loads((workdir / "genotype.json").read_text())
        assert document["finished"]
        assert any(words.startswith("no alpha has moved") for words in document["warnings"])
        assert "no alpha has moved" in (workdir / "report.html").read_text()
        (workdir / "alphas.npz").write_bytes(b"PK\3\4 not much more")
        with open(workdir / "metrics.jsonl", "ab") as file:
            file.write(b"\xff\xfe 5\n")
        search.search(config(images, max_steps=4, **late), str(workdir))
    finally:
        logger.removeHandler(caplog.handler)
    assert "alphas.npz: damaged" in caplog.text and "begins anew" in caplog.text
    assert "1 damaged lines are left out" in caplog.text
    with np.load(workdir / "alphas.npz") as alphas:
        assert alphas["step"].tolist() == [3, 4]
