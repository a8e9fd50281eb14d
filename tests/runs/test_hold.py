"""One run a workdir: locks, and beats where there are none."""

import errno
import fcntl
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from tests import tiny
from unnas_jax.core.errors import UserError
from unnas_jax.runs import hold, search
from unnas_jax.runs import workdir as workdir_lib


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(hold, "_BEAT_S", 0.02)
    monkeypatch.setattr(hold, "_LOOK_S", 0.05)
    monkeypatch.setattr(hold, "_WATCH_S", 0.3)


def _hold(directory):
    return hold.held(str(directory), str(directory))


def test_a_second_one_is_told_who_has_it(tmp_path):
    with _hold(tmp_path):
        with pytest.raises(UserError) as error, _hold(tmp_path):
            raise AssertionError("went on")
        assert f"in use by process {os.getpid()} on host {os.uname().nodename}" in str(error.value)
        assert (tmp_path / hold.FILE).exists()
    assert not (tmp_path / hold.FILE).exists()
    with _hold(tmp_path):
        pass


def test_a_search_is_refused_before_anything_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "open_dataset", None)  # What comes next.
    with (
        workdir_lib.alone(workdir_lib.local(str(tmp_path))),
        pytest.raises(UserError, match="is in use by process"),
    ):
        search.search(tiny.config(), str(tmp_path))


_KILLED = """
import os, signal, sys
from unnas_jax.runs import hold
with hold.held(sys.argv[1], sys.argv[1]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_one_leaves_it_to_the_next_on_the_same_machine(tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)])
    assert json.loads((tmp_path / hold.FILE).read_text())["host"]
    monkeypatch.setattr(hold, "_WATCH_S", 1000.0)
    with _hold(tmp_path):
        pass


def _written_elsewhere(path: pathlib.Path, beat: int = 0) -> None:
    owner = {
        "host": "far",
        "process": 7,
        "machine": "another",
        "since": 0.0,
        "beat": f"{beat:012d}",
    }
    path.write_text(json.dumps(owner))


def test_another_machine_that_is_silent_has_lost_it(tmp_path):
    _written_elsewhere(tmp_path / hold.FILE)
    start = time.monotonic()
    with _hold(tmp_path):
        assert json.loads((tmp_path / hold.FILE).read_text())["process"] == os.getpid()
    assert time.monotonic() - start >= 0.3


def test_another_machine_that_lives_has_it(tmp_path, monkeypatch):
    path = tmp_path / hold.FILE
    _written_elsewhere(path)
    # As whoever waits between two looks sees it.
    monkeypatch.setattr(hold.time, "sleep", lambda seconds: _written_elsewhere(path, 1))
    with pytest.raises(UserError, match="process 7 on host far"), _hold(tmp_path):
        raise AssertionError("went on")
    assert json.loads(path.read_text())["host"] == "far"  # It keeps what it has.


def test_without_locks_beats_tell(tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(hold, "_WATCH_S", 600.0)  # A beat can be late; one is enough.
    with (
        _hold(tmp_path),
        pytest.raises(UserError, match=f"process {os.getpid()} on host"),
        _hold(tmp_path),
    ):
        raise AssertionError("went on")


@pytest.mark.parametrize("content", [b"", b"{", b"5", b'{"host": 1}', b"\xff"])
def test_what_is_no_owner_is_nobody(tmp_path, content):
    (tmp_path / hold.FILE).write_bytes(content)
    with _hold(tmp_path):
        pass
