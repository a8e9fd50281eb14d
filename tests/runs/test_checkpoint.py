"""Checkpoints: what is damage and what is not, digests, readers, and restoring elsewhere."""

import errno
import gc
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.conftest import ROOT
from unnas_jax.convert import states
from unnas_jax.core import failures
from unnas_jax.core.errors import Interruption, UserError
from unnas_jax.runs import snapshot
from unnas_jax.runs.checkpoint import Checkpoints


def _state(step: int) -> dict:
    rng = np.random.default_rng(step)
    params = {"kernel": rng.normal(size=(40, 50)).astype(np.float32)}
    return {"params": params, "step": np.full((), step, np.int32)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> pathlib.Path:
    """A workdir with checkpoints of the steps 1 and 2."""
    workdir = tmp_path_factory.mktemp("saved") / "w"
    with Checkpoints(str(workdir / "checkpoints")) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, _state(step), {"step": step, "validation": 0.25})
    return workdir


@pytest.fixture
def workdir(saved, tmp_path) -> pathlib.Path:
    shutil.copytree(saved, tmp_path / "w")
    return tmp_path / "w"


def _tree(root: pathlib.Path) -> dict:
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in root.rglob("*")
    }


def _restore(workdir, **options):
    with Checkpoints(str(workdir / "checkpoints"), **options) as checkpoints:
        return checkpoints.restore(_state(0))


def _flip(path: pathlib.Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(bytes(data))


def test_the_position_comes_back_as_it_was_saved(saved):
    state, position = _restore(saved)
    assert position == {"step": 2, "validation": 0.25}
    np.testing.assert_array_equal(state["params"]["kernel"], _state(2)["params"]["kernel"])


@pytest.mark.parametrize(
    "error",
    [
        ValueError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes"),
        MemoryError(),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.EIO, "Input/output error"),
        PermissionError(errno.EACCES, "Permission denied"),
        ValueError("UNAVAILABLE: Error reading gs://b/x: HTTP response code: 503"),
        RuntimeError("something that nobody has thought of"),
    ],
)
@pytest.mark.parametrize("read_only", [False, True])
def test_an_error_that_is_no_damage_leaves_all_as_it_is(workdir, monkeypatch, error, read_only):
    before = _tree(workdir)

    def restore(self, *arguments, **options):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "restore", restore)
        with pytest.raises(Interruption, match="step 2 cannot be read now") as raised:
            _restore(workdir, read_only=read_only)
    assert "\n" not in str(raised.value)
    assert _tree(workdir) == before
    assert _restore(workdir)[1]["step"] == 2


# Of what asyncio has begun when it finds no descriptor.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_too_few_descriptors_are_no_damage(workdir):
    """For real: no file can be opened."""
    before, (soft, hard) = _tree(workdir), resource.getrlimit(resource.RLIMIT_NOFILE)
    with Checkpoints(str(workdir / "checkpoints")) as checkpoints:
        checkpoints.restore(_state(0))  # What is loaded and started once is.
        free = os.dup(0)
        os.close(free)
        # With one more than the three of an event loop some restores would succeed.
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            with pytest.raises(Interruption):
                checkpoints.restore(_state(0))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    gc.collect()
    assert _tree(workdir) == before


def test_too_few_addresses_are_no_damage(workdir):
    """For real; without the check the threads of a restore wait for each other for ever."""
    before, (soft, hard) = _tree(workdir), resource.getrlimit(resource.RLIMIT_AS)
    with Checkpoints(str(workdir / "checkpoints")) as checkpoints:
        used = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (used * resource.getpagesize() + (8 << 20), hard))
        try:
            with pytest.raises(Interruption, match=r"\d+ MiB of the address space \(ulimit -v\)"):
                checkpoints.restore(_state(0))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert _tree(workdir) == before


def _array_file(workdir: pathlib.Path, step: int) -> pathlib.Path:
    """The file with most of the values."""
    files = (workdir / "checkpoints" / str(step) / "state").rglob("*")
    return max(files, key=lambda path: path.stat().st_size if path.is_file() else 0)


def test_a_flipped_bit_is_noticed(workdir, caplog):
    path = _array_file(workdir, 2)
    pristine = path.read_bytes()
    for position in np.linspace(0, len(pristine) - 1, 12).astype(int):
        path.write_bytes(pristine)
        _flip(path, position, int(position) % 8)
        state, place = _restore(workdir, read_only=True)
        # Not all bits of a file count; but what is restored is what was saved.
        expected = _state(place["step"])
        np.testing.assert_array_equal(state["params"]["kernel"], expected["params"]["kernel"])
        assert int(state["step"]) == place["step"]
    assert "checkpoint of step 2 is damaged" in caplog.text
    assert not (workdir / "checkpoints_damaged").exists()
    assert (workdir / "checkpoints" / "2").is_dir()


def test_a_digit_of_the_position_is_noticed(workdir, caplog):
    path = workdir / "checkpoints" / "2" / "progress" / "metadata"
    path.write_text(path.read_text().replace("0.25", "0.75"))
    assert _restore(workdir)[1]["step"] == 1
    assert "digest" in caplog.text
    assert (workdir / "checkpoints_damaged" / "2.0").is_dir()


def test_an_export_notices_damage_too(tmp_path):
    fields = ("params", "batch_stats", "alphas", "weights_opt", "alphas_opt")
    state = {"step": np.zeros((), np.int32), **{name: {"x": np.ones(3)} for name in fields}}
    with Checkpoints(str(tmp_path / "checkpoints")) as checkpoints:
        checkpoints.save(5, state, {"step": 5, "validation": 0.25})
    found, position = states.read(str(tmp_path), None)
    assert position == {"step": 5, "validation": 0.25}
    np.testing.assert_array_equal(found.alphas["x"], np.ones(3))
    path = tmp_path / "checkpoints" / "5" / "progress" / "metadata"
    path.write_text(path.read_text().replace("0.25", "0.75"))
    with pytest.raises(UserError, match="step 5 is damaged"):
        states.read(str(tmp_path), None)


def test_a_checkpoint_without_a_digest_passes(workdir):
    path = workdir / "checkpoints" / "2" / "progress" / "metadata"
    path.write_text(json.dumps({"step": 2, "validation": None}))
    assert _restore(workdir)[1] == {"step": 2, "validation": None}


def test_a_changed_shape_is_damage_unless_the_network_is_another(workdir):
    """What `layout` is for: a bit of the metadata can turn one shape into another."""
    assert _restore(workdir)[1]["step"] == 2
    other = {"params": {"kernel": np.zeros((40, 51), np.float32)}, "step": np.zeros((), np.int32)}
    with (
        Checkpoints(str(workdir / "checkpoints")) as checkpoints,
        pytest.raises(UserError, match="of another network"),
    ):
        checkpoints.restore(other)
    assert (workdir / "checkpoints" / "2").is_dir()


def test_a_reader_makes_and_moves_nothing(workdir):
    for step in (1, 2):
        _array_file(workdir, step).write_bytes(b"?")
    before = _tree(workdir)
    with pytest.raises(UserError, match="they are as they were"):
        _restore(workdir, read_only=True)
    assert _tree(workdir) == before


def test_what_a_kill_at_the_end_left_is_removed(tmp_path):
    """Between the last save and the removal of old checkpoints: nobody saves any more."""
    with Checkpoints(str(tmp_path / "checkpoints")) as checkpoints:
        for step, ranking in ((1, 0.25), (2, 0.5), (3, 0.75), (4, None), (5, 0.5)):
            if step == 4:  # A run that starts again still knows which one is the best.
                checkpoints.steps()
            checkpoints.save(step, _state(step), {"step": step}, ranking)
            checkpoints.wait()
            if step <= 2:
                old = tmp_path / "checkpoints" / str(step)
                shutil.copytree(old, tmp_path / "old" / str(step))
        assert checkpoints.steps() == [3, 4, 5]  # The best one, and the last two.
    for step in ("1", "2"):
        shutil.copytree(tmp_path / "old" / step, tmp_path / "checkpoints" / step)
    shutil.copytree(tmp_path / "old" / "1", tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp")
    with Checkpoints(str(tmp_path / "checkpoints")) as checkpoints:
        assert checkpoints.steps() == [1, 2, 3, 4, 5]
        checkpoints.tidy()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["3", "4", "5"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_neither_saved_nor_restored(workdir, tmp_path, bad):
    state = _state(3)
    state["params"]["kernel"][3, 4] = bad
    with Checkpoints(str(workdir / "checkpoints")) as checkpoints:
        with pytest.raises(ValueError, match="params/kernel"):
            checkpoints.save(3, state, {"step": 3})
        assert checkpoints.steps() == [1, 2]
    # As earlier versions saved it.
    with ocp.CheckpointManager(workdir / "checkpoints") as manager:
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave({"step": 3})
        )
        manager.save(3, args=items)
    assert _restore(workdir)[1]["step"] == 2


def test_a_save_for_which_there_is_no_space_is_one_error(tmp_path, capfd):
    """The limit of a file's size ends a save as a full disk does."""
    size, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    state = {"kernel": np.random.default_rng(0).normal(size=(200, 300))}
    with Checkpoints(str(tmp_path / "checkpoints")) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        try:
            with pytest.raises(Exception) as error:
                checkpoints.save(1, state, {"step": 1})
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        assert checkpoints.steps() == []
    assert "the disk is full" in str(failures.explanation(error.value))
    assert "Traceback" not in capfd.readouterr().err


_WRITE = """
import sys, jax, numpy as np
from unnas_jax.core import sharding
from unnas_jax.runs import checkpoint
mesh = sharding.data_mesh()
assert mesh.size == 4
state = sharding.replicate({"alphas": {"normal": np.arange(6.0).reshape(2, 3)}}, mesh)
with checkpoint.Checkpoints(sys.argv[1]) as checkpoints:
    checkpoints.save(7, state, {"step": 7})
"""

_READ = """
import sys, jax, numpy as np
assert jax.device_count() == 1
import orbax.checkpoint as ocp

manager = ocp.CheckpointManager(sys.argv[1])
state = manager.restore(manager.latest_step()).state
np.testing.assert_array_equal(state["alphas"]["normal"], np.arange(6.0).reshape(2, 3))
"""


def test_four_devices_write_and_the_documented_lines_read_on_one(tmp_path):
    for code, devices in ((_WRITE, 4), (_READ, 1)):
        flags = f"--xla_force_host_platform_device_count={devices}"
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "checkpoints")],
            env={**os.environ, "XLA_FLAGS": flags},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


def test_signing_sees_names_shapes_types_and_values():
    state, position = _state(1), {"step": 1}
    signed = snapshot.signed(state, position)
    assert snapshot.verified(state, signed) == position
    kernel = state["params"]["kernel"]
    for other in (
        {"params": {"kernal": kernel}, "step": state["step"]},
        {"params": {"kernel": kernel.reshape(50, 40)}, "step": state["step"]},
        {"params": {"kernel": kernel.view(np.int32)}, "step": state["step"]},
        {"params": {"kernel": np.nextafter(kernel, 9)}, "step": state["step"]},
    ):
        with pytest.raises(ValueError, match="digest"):
            snapshot.verified(other, signed)


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (MemoryError(), "config.train.batch_size"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "config.train.batch_size"),
        (OSError(errno.ESTALE, "Stale file handle"), "the same command tries again"),
    ],
)
def test_an_error_of_the_system_is_one_line(error, words):
    wrapped = RuntimeError("a library's own\nlines")
    wrapped.__cause__ = error
    line = str(failures.explanation(wrapped, "the checkpoint of step 3 is kept"))
    assert words in line and "step 3 is kept" in line and "\n" not in line
    assert failures.explanation(ZeroDivisionError("of the program")) is None


def test_the_best_checkpoint_outlives_later_ones_and_other_processes(tmp_path):
    directory = str(tmp_path / "w" / "checkpoints")
    for steps in ((1, 2, 3), (4, 5)):
        with Checkpoints(directory) as checkpoints:
            for step in steps:
                ranking = {1: 0.9, 2: 0.4, 4: 0.5}.get(step)
                checkpoints.save(step, _state(step), {"step": step, "validation": 0.1}, ranking)
                checkpoints.wait()
    with Checkpoints(directory, read_only=True) as checkpoints:
        assert checkpoints.steps() == [1, 4, 5] and checkpoints.best() == 1
        state, position = checkpoints.restore_step(1, lambda position: _state(0))
    assert position["step"] == 1 and state["step"] == 1
