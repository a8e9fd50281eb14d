"""Scores against a table: what is drawn, kept, continued, refused; correlations of known data."""

import csv
import json
import pathlib

import cv2
import pytest

from tests import tiny
from unnas_jax.analysis import published
from unnas_jax.commands import correlate as command
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.nasbench201 import spec
from unnas_jax.sweep import correlate, local_engine

COUNT = 6


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pathlib.Path:
    """Cells with more and more convolutions, the first three without a way to the output."""
    chain = ["none"] * 6
    cells = []
    for k in range(COUNT):
        chain[k] = "nor_conv_3x3" if k % 2 else "nor_conv_1x1"
        cells.append(str(spec.Spec(tuple(chain))))
    path = tmp_path_factory.mktemp("table") / "table.csv"
    rows = [f'"{cell}",{50 + k},{60 - k}' for k, cell in enumerate(cells)]
    path.write_text("cell,cifar10valid,other\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(tiny.upright(8, 8)):
        cv2.imwrite(str(folder / f"{number:03d}.png"), image)
    return folder


def run(table, images, workdir, *more: str) -> int:
    return command.main(
        [
            *(f"--table={table}", f"--images={images}", f"--workdir={workdir}"),
            *("--space=nasbench201", "--width=4", "--side=8", "--batch=4"),
            *("--scores=parameters,multiply_adds", *more),
        ]
    )


def test_a_table_is_scored_and_a_second_start_adds_what_is_missing(
    table, images, tmp_path, capsys, monkeypatch
) -> None:
    assert run(table, images, tmp_path, "--count=3") == 0
    rows = (tmp_path / "scores.jsonl").read_text().splitlines()
    assert len(rows) == 6
    # Killed in the middle of a line: it is computed again, and nothing else.
    torn = "\n".join(rows)[:-20]
    (tmp_path / "scores.jsonl").write_text(torn)
    assert run(table, images, tmp_path) == 0
    lines = (tmp_path / "scores.jsonl").read_text().splitlines()
    assert (
        lines[:5] == rows[:5]
        and lines[5] != rows[5]
        and json.loads(lines[6])["value"] == json.loads(rows[5])["value"]
    )
    assert len(lines) == 9
    found = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert len(found) == len({row["name"] for row in found}) == 4
    out = capsys.readouterr().out
    assert "parameters" in out and "tau" in out
    assert run(table, images, tmp_path, "--seed=1") == 2
    assert "other settings (seed: 0 -> 1)" in capsys.readouterr().err
    monkeypatch.setattr(correlate, "compute", None)
    assert run(table, images, tmp_path, "--show") == 0


def test_several_workers_leave_the_same_rows(table, images, tmp_path, monkeypatch) -> None:
    """And go on where one left off."""
    monkeypatch.setattr(local_engine, "devices", lambda: ("cpu", 1))
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(table, images, one) == 0
    assert run(table, images, two, "--count=1") == 0
    assert run(table, images, two, "--workers=2") == 0

    def rows(workdir: pathlib.Path) -> list[dict]:
        lines = map(json.loads, (workdir / "scores.jsonl").read_text().splitlines())
        return [{key: value for key, value in row.items() if key != "seconds"} for row in lines]

    assert len(rows(two)) == 8 and rows(two) == rows(one)


def test_cells_that_are_passed_over_are_others(table) -> None:
    read = published.read(table)
    first = correlate.choose(read, "nasbench201", count=2, skip=0, seed=3)
    second = correlate.choose(read, "nasbench201", count=2, skip=2, seed=3)
    both = correlate.choose(read, "nasbench201", count=4, skip=0, seed=3)
    assert [*first, *second] == both
    with pytest.raises(UserError, match="different cells"):
        correlate.choose(read, "nasbench201", count=9, skip=0, seed=3)


def test_correlations_of_known_values(table, tmp_path) -> None:
    """A score that follows one column and opposes the other; values of their own for some."""
    read = published.read(table)
    cells = correlate.choose(read, "nasbench201", count=0, skip=0, seed=0)
    rows = correlate.Rows(str(tmp_path / "scores.jsonl"))
    for cell in cells:
        rows.add(cell, "synflow", read.columns["cifar10valid"][cell.row] ** 3, 1.0)
    again = correlate.Rows(str(tmp_path / "scores.jsonl"))
    assert again.values == rows.values
    first, second = correlate.correlations(read, cells, ["synflow"], again, "nasbench201")
    assert (first.rho.rho, first.tau.rho, first.published[0]) == (1, 1, 0.737)
    assert (second.rho.rho, second.tau.rho, second.published) == (-1, -1, None)
    assert "0.737" in correlate.correlations_csv([first, second])


@pytest.mark.parametrize(
    "flag, words",
    [
        ("--scores=synfow", "did you mean 'synflow'"),
        ("--scores=zen,zen", "name each score once"),
        ("--space=nowhere", "--space=nowhere: use one of"),
        ("--columns=x", "has no column x"),
        ("--workers=0", "--workers=0: must be at least 1"),
        ("--images=", "--images: give a folder of images, or a dataset's name, for parameters"),
        ("--scores=angle", "--scores=angle: needs the weights of a supernet"),
        ("--supernet=/nowhere", "workdir /nowhere"),
        ("--count=-1", "--count=-1: must be at least 0"),
        ("--scores=snip", "score snip: needs labels"),
        ("--batch=99", "takes 99"),
        ("--table=/nowhere.csv", "cannot read /nowhere.csv"),
    ],
)
def test_mistakes_end_in_one_line(flag, words, table, images, tmp_path, capsys) -> None:
    assert run(table, images, tmp_path, flag) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_settings_are_json(table, images, tmp_path) -> None:
    assert run(table, images, tmp_path, "--count=3") == 0
    settings = json.loads((tmp_path / "correlate.json").read_text())
    assert settings["space"] == "nasbench201" and settings["table"] == "table.csv"
    rows = (tmp_path / "scores.jsonl").read_text().splitlines()
    assert all(json.loads(row)["value"] > 0 for row in rows) and len(rows) == 6
