"""Tests that a small file is replaced whole or not at all."""

import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from tests.conftest import ROOT
from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.data import open_dataset


def test_replaces_the_content_and_leaves_nothing_else(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")
    with files.replacing(path) as file:
        file.write("new: \N{LATIN SMALL LETTER E WITH ACUTE}")
        assert path.read_text() == "old"
    assert path.read_text(encoding="utf-8") == "new: \N{LATIN SMALL LETTER E WITH ACUTE}"
    assert os.listdir(tmp_path) == ["result.txt"]


def test_processes_take_turns(tmp_path: pathlib.Path) -> None:
    program = (
        "import sys, time; from unnas_jax.core import files\n"
        "with files.in_turn(sys.argv[1]):\n"
        "    print('in', flush=True); time.sleep(0.2); print('out', flush=True)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "new" / "lock")]
    with open(tmp_path / "log", "w") as log:
        several = [subprocess.Popen(command, stdout=log, cwd=ROOT) for _ in range(3)]
    assert [process.wait(300) for process in several] == [0, 0, 0]
    assert (tmp_path / "log").read_text().split() == ["in", "out"] * 3


def test_who_waits_for_its_turn_says_so(tmp_path: pathlib.Path, caplog) -> None:
    def enter() -> None:
        with files.in_turn(tmp_path / "lock"):
            pass

    waiting = threading.Thread(target=enter)
    with caplog.at_level("INFO", "unnas_jax"), files.in_turn(tmp_path / "lock"):
        waiting.start()
        end = time.monotonic() + 300
        while "Waiting for another process" not in caplog.text:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert waiting.is_alive()
    waiting.join(300)
    assert not waiting.is_alive()


def test_the_address_of_a_bucket_is_refused_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"workdir gs://bucket/x.*mount bucket"):
        files.check_mounted("workdir", "gs://bucket/x")
    files.check_mounted("workdir", "/mnt/bucket/x")
    with pytest.raises(UserError, match=r"config\.dataset\.data_dir"):
        open_dataset({"name": "photos", "data_dir": "gs://bucket/data"})


def test_an_exception_leaves_the_old_content(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.txt"]


def test_an_exception_creates_no_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(RuntimeError), files.replacing(tmp_path / "result.bin", "wb") as file:
        file.write(b"half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_a_result_has_the_permissions_of_any_other_file(tmp_path: pathlib.Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.write_text("")
    with files.replacing(tmp_path / "result.bin", "wb") as file:
        file.write(b"\x00\xff")
    assert (tmp_path / "result.bin").read_bytes() == b"\x00\xff"
    assert (tmp_path / "result.bin").stat().st_mode == ordinary.stat().st_mode


def test_a_name_without_a_directory(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files.write_json("result.json", [1])
    assert files.read_json("result.json") == [1]


def test_json_round_trips_and_refuses_nan(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "result.json"
    value = {"a": [1, 2.5, None], "b": "\N{GREEK SMALL LETTER ALPHA}"}
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert path.read_text(encoding="utf-8").endswith("\n")
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, {"loss": float("nan")})
    assert files.read_json(path) == value
