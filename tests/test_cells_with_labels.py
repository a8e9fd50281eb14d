"""Cells of searches against random ones of their size: what the rows of trainings say."""

import pytest

from benchmarks import cells_with_labels
from tests import conftest


def _rows(name: str, *accuracies: float) -> list[dict]:
    return [{"name": name, "seed": k, "accuracy": a} for k, a in enumerate(accuracies)]


def test_groups_are_compared_in_pairs() -> None:
    rows = [
        *_rows("rot_0", 0.50, 0.52),
        *_rows("random of rot_0", 0.50),
        *_rows("rot_1", 0.53),
        *_rows("random of rot_1", 0.49, 0.51),
        *_rows("darts_v2", 0.6),
    ]
    rot, published = cells_with_labels.compare(rows)
    assert (rot["group"], rot["cells"]) == ("rot", 2)
    # Means over seeds are 0.51 and 0.53, of the random cells 0.50 and 0.50.
    assert rot["difference"] == pytest.approx(0.02)
    half = 12.706 * 0.01  # Student's t with one degree of freedom, times the standard error.
    assert rot["high"] - rot["difference"] == pytest.approx(half, rel=1e-4)
    assert rot["p"] == 0.5  # Two of the four choices of signs are as far from 0.
    assert published["group"] == "darts_v2" and "low" not in published


def test_the_rows_kept_say_what_the_page_says() -> None:
    folder = conftest.ROOT / "docs" / "results" / "search"
    page = (folder / "README.md").read_text()
    found = {row["group"]: row for row in cells_with_labels.compare(_kept(folder))}
    for group, task in (("cls", "classification"), ("jig", "jigsaw"), ("rot", "rotation")):
        row = found[group]
        assert f"| {task} | {row['cells']} | {100 * row['accuracy']:.1f}% +-" in page


def _kept(folder) -> list[dict]:
    return cells_with_labels.read(folder / "cells.csv")
