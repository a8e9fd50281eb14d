"""Tests of the picture of loss, accuracy and learning rate."""

import json
import pathlib

import numpy as np

from tests.analysis import synthetic
from unnas_jax.analysis import curves, results


def test_shows_both_halves_validation_and_chance(tmp_path: pathlib.Path) -> None:
    synthetic.write(tmp_path)
    loss, accuracy, rate = curves.draw(results.read(tmp_path)).axes
    lines = {line.get_label(): line for line in accuracy.lines}
    assert set(np.atleast_1d(lines["chance"].get_ydata())) == {0.25}
    records = synthetic.records(4)
    for label, kind, key in (
        ("half A (weights), batches", "train", "accuracy"),
        ("half B (alphas), batches", "train", "alpha_accuracy"),
        ("half B, validation", "validation", "accuracy"),
    ):
        expected = [(r["epoch"], r[key]) for r in records if r["kind"] == kind and key in r]
        np.testing.assert_allclose(lines[label].get_xydata(), expected)
    assert len(loss.lines) == len(accuracy.lines)
    assert len(np.atleast_1d(rate.lines[0].get_xdata())) == 6


def test_draws_before_anything_is_logged(tmp_path: pathlib.Path) -> None:
    synthetic.write(tmp_path, rows=1)
    (tmp_path / "metrics.jsonl").unlink()
    accuracy = curves.draw(results.read(tmp_path)).axes[1]
    assert [text.get_text() for text in accuracy.texts] == ["nothing logged yet"]


def test_says_so_where_no_learning_rate_is_known(tmp_path: pathlib.Path) -> None:
    synthetic.write(tmp_path)
    path = tmp_path / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    bare = [{k: v for k, v in row.items() if k != "learning_rate"} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in bare))
    rate = curves.draw(results.read(tmp_path)).axes[2]
    assert [text.get_text() for text in rate.texts] == ["not known: the optimizer was an object"]


def test_smoothing_is_a_centred_mean() -> None:
    values = np.array([0.0, 3.0, 0.0, 0.0, 6.0])
    np.testing.assert_allclose(curves.smooth(values, 3), [1.5, 1.0, 1.0, 2.0, 3.0])
