"""Tests of the tables: measured beside published, in three formats, and errors of one line."""

import csv
import io
import json
import pathlib
from typing import Any

import pytest

from unnas_jax.analysis import tables
from unnas_jax.commands import tables as command
from unnas_jax.config import recipes
from unnas_jax.core.errors import UserError


def write(directory: pathlib.Path, **changes: Any) -> pathlib.Path:
    """A run's result; by default three seeds of a published cell on ImageNet-1K."""
    value = {
        "schema": "unnas_jax.result/1",
        "experiment": "train",
        "dataset": "imagenet2012",
        "task": "classification",
        "genotype": "unnas_in22k_rot",
        "genotype_source": None,
        "width": 42,
        "cells": 14,
        "parameters": 5_002_003,
        "multiply_adds": 541_119_264,
        "seeds": [0, 1, 2],
        "metric": "accuracy",
        "values": [0.751, 0.753, 0.755],
        "mean": 0.753,
        "std": 0.002,
        "finished": True,
        **changes,
    }
    directory.mkdir(parents=True)
    path = directory / "result.json"
    path.write_text(json.dumps(value))
    return path


def cells(text: str) -> list[list[str]]:
    """The rows of a Markdown text's tables."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]


def test_measured_beside_published(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "a_search_without_a_result").mkdir()
    text = tables.markdown(tables.collect([str(tmp_path / "runs")]))
    assert "Table 1" in text
    assert "Table 2" not in text
    header, _, *rows = cells(text)
    assert len(rows) == 17
    mine = [row for row in rows if row[2]]
    assert mine == [
        ["UnNAS-DARTS", "IN22K Rot", "75.3 ± 0.20", "75.7 ± 0.23", "541.1", "549", "5.0", "5.0"]
    ]
    assert header[4:6] == ["multiply-adds (M)", "published FLOPs (M)"]


def test_table_2_and_other_datasets(tmp_path: pathlib.Path) -> None:
    city = {
        "dataset": "cityscapes",
        "task": "segmentation",
        "metric": "miou",
        "genotype": "unnas_cityscapes_jig",
        "multiply_adds": 105_818_023_480,
        "parameters": 10_199_835,
    }
    write(tmp_path / "a", **city, values=[0.74], mean=0.74, std=0.0)
    write(tmp_path / "b", dataset="photos", genotype="darts_v1", finished=False)
    text = tables.markdown(tables.collect([str(tmp_path)]))
    assert "Table 1" not in text
    rows = cells(text)
    assert [
        "UnNAS-DARTS", "Cityscapes Jigsaw", "74.0 (n=1)", "74.1 ± 0.39", "105.82", "128", "10.2",
        "10.2",
    ] in rows  # fmt: skip
    assert [
        "photos", "classification", "darts_v1", "", "accuracy", "75.3 ± 0.20, running", "541.1",
        "5.00",
    ] in rows  # fmt: skip


def test_a_cell_of_one_s_own_search_comes_last(tmp_path: pathlib.Path) -> None:
    source = {"dataset": "photos", "task": "rotation"}
    write(tmp_path / "a", genotype="runs/rot/genotype.json", genotype_source=source)
    *_, last = cells(tables.markdown(tables.collect([str(tmp_path / "a")])))
    assert last[:2] == ["UnNAS-DARTS (runs/rot/genotype.json)", "photos Rot"]
    assert (last[2], last[3]) == ("75.3 ± 0.20", "")


def test_csv_and_latex_hold_the_same_rows(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "a")
    results = tables.collect([str(tmp_path)])
    _, _, *rows = cells(tables.markdown(results))
    header, *lines = csv.reader(io.StringIO(tables.comma_separated(results)))
    assert [line[1:] for line in lines] == rows
    assert header[0] == "table"
    source = tables.latex(results)
    body = source.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert len(body) == len(rows)
    assert r"UnNAS-DARTS & IN22K Rot & 75.3 $\pm$ 0.20 & 75.7 $\pm$ 0.23" in source
    assert r"search dataset \& task" in source


def test_the_same_file_counts_once(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a")
    assert len(tables.collect([str(tmp_path), str(path), str(tmp_path / "a")])) == 1


def test_two_trainings_of_a_cell_are_two_rows(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", values=[0.7], mean=0.7, std=0.0)
    rows = cells(tables.markdown(tables.collect([str(tmp_path)])))
    assert [row[2] for row in rows[2:] if row[2]] == ["75.3 ± 0.20", "70.0 (n=1)"]


def test_results_of_other_experiments_are_passed_over(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", experiment="sample", schema="unnas_jax.sample/1")
    assert len(tables.collect([str(tmp_path)])) == 1


def test_every_row_of_the_paper_has_a_cell() -> None:
    for table, widths in (
        (tables.TABLE_1, recipes.IMAGENET_WIDTHS),
        (tables.TABLE_2, recipes.CITYSCAPES_WIDTHS),
    ):
        named = [row.genotype for row in table.rows if row.genotype]
        assert sorted(named) == sorted(widths)
    rows = {row.genotype: row for row in tables.TABLE_1.rows}
    assert rows["unnas_in22k_cls"].searched_on == "IN22K Supv. Cls"
    assert rows["unnas_cityscapes_seg"].method == "NAS-DARTS"
    assert rows["unnas_cityscapes_col"].mean == 75.2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d / "missing", "no such directory"),
        (lambda d: d, "no result.json of an evaluation"),
        (lambda d: (d / "result.json").write_text("{") and d, "not JSON"),
        (lambda d: write(d / "a", schema="unnas_jax.result/9"), "this version reads"),
        (lambda d: write(d / "a", width=None), "not a result of this version"),
    ],
)
def test_mistakes_end_in_one_line(
    make: Any, message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(make(tmp_path))
    assert command.main([path]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert message in captured.err
    with pytest.raises(UserError):
        tables.collect([path])
