"""`unnas-jax rank`: from a folder and a list of cells to a table, files and a page."""

import json
import pathlib

import cv2
import pytest

from tests import tiny
from unnas_jax.commands import rank as command
from unnas_jax.sweep import local_engine, units

CELLS = ("010-001-000:conv3x3", "010-001-000:conv1x1", "0110-0001-0001-0000:conv3x3,maxpool3x3")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(tiny.upright(16, 8)):
        cv2.imwrite(str(folder / f"{number:02d}.png"), image)
    return folder


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units are worked off here: processes cost seconds to start."""
    monkeypatch.setattr(local_engine, "devices", lambda: ("cpu", 1))
    monkeypatch.setattr(
        local_engine,
        "run",
        lambda store, todo, work, *rest, **options: units.work_off(store, todo, work),
    )


def run(images: pathlib.Path, cells: pathlib.Path, workdir: pathlib.Path, *more: str) -> int:
    return command.main(
        [
            *(f"--images={images}", f"--architectures={cells}", f"--workdir={workdir}"),
            *("--by=parameters,multiply_adds", "--batch=4", "--side=8", "--width=4", *more),
        ]
    )


def test_a_list_is_ranked(images, tmp_path, capsys, monkeypatch) -> None:
    """The space is found by its texts; a second start has nothing to do."""
    cells = tmp_path / "cells.txt"
    cells.write_text("# mine\n" + "\n".join(CELLS) + "\n")
    workdir = tmp_path / "runs"
    assert run(images, cells, workdir) == 0
    out = capsys.readouterr().out
    assert "parameters and multiply_adds agree with rho" in out and "mean rank" in out
    document = json.loads((workdir / "ranking.json").read_text())
    (first, *_) = document["judges"][0]["architectures"]
    assert document["cells"][first["name"]] == CELLS[0] and len(first["values"]) == 3
    assert len((workdir / "ranking.csv").read_text().splitlines()) == 1 + 3 * 2 * 3
    assert "data:image/png" in (workdir / "ranking.html").read_text()
    monkeypatch.setattr(local_engine, "run", None)
    assert run(images, cells, workdir) == 0


@pytest.mark.parametrize(
    "content, flag, words",
    [
        (CELLS[0], "--by=rotatoin", "did you mean 'rotation'"),
        (CELLS[0], "--seeds=0", "--seeds=0: must be at least 1"),
        (CELLS[0], "--side=30", "multiple of 8"),
        (CELLS[0], "--batch=64", "fewer than a step's 64"),
        (CELLS[0], "--space=x", "--space=x: use one of"),
        ("no cell", "--seeds=2", "no space reads all of it"),
        ("no cell", "--space=nasbench101", "entry 1"),
        (None, "--seeds=2", "cannot read"),
    ],
)
def test_mistakes_end_in_one_line(content, flag, words, images, tmp_path, capsys) -> None:
    cells = tmp_path / "cells.txt"
    if content is not None:
        cells.write_text(content)
    assert run(images, cells, tmp_path / "runs", flag) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error
    assert not (tmp_path / "runs" / "units").exists()
