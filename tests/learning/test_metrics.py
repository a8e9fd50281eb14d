"""Tests of what a run writes down: means, rows after a restart, half a line after a kill."""

import json
import math
import pathlib
from typing import Any

import numpy as np
import pytest

from unnas_jax.core import logs
from unnas_jax.learning import metrics
from unnas_jax.tasks import base


def rows(workdir: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_means_weigh_batches_by_their_count() -> None:
    sums = [
        {"loss": np.float32(30.0), "correct": np.float32(9.0), "count": np.float32(10.0)},
        {"loss": np.float32(1.0), "correct": np.float32(1.0), "count": np.float32(2.0)},
    ]
    assert base.means(base.total(sums)) == {
        "loss": pytest.approx(31 / 12),
        "accuracy": pytest.approx(10 / 12),
    }
    empty = {"loss": 0.0, "correct": 0.0, "count": 0.0}
    assert base.means(base.total([empty])) == {"loss": 0.0, "accuracy": 0.0}


def test_first_not_finite() -> None:
    sums = [{"loss": value} for value in (1.0, math.inf, math.nan)]
    assert metrics.first_not_finite(sums) == 1
    assert metrics.first_not_finite(sums[2:]) == 0
    assert metrics.first_not_finite(sums[:1]) is None
    assert metrics.first_not_finite([]) is None


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (4.4, "4 s"), (89.4, "89 s"), (90, "2 min"), (723, "12 min"), (3599.7, "1 h 00 min"),
        (12_000, "3 h 20 min"), (200_000, "2 d 7 h"), (math.inf, "?"), (math.nan, "?"),
    ],
)  # fmt: skip
def test_duration(seconds: float, expected: str) -> None:
    assert logs.duration(seconds) == expected


def test_a_restart_removes_later_rows_and_half_a_line(tmp_path: pathlib.Path) -> None:
    log = metrics.MetricsLog(str(tmp_path), step=0)
    for step in (10, 20, 30, 40):
        log.write("train", step, loss=1.0 / step, epoch=step / 20)
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "step": 1')
    log = metrics.MetricsLog(str(tmp_path), step=20)
    log.write("train", 30, loss=3.0)
    log.close()
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [
        (10, 0.1), (20, 0.05), (30, 3.0),
    ]  # fmt: skip


def test_a_last_line_without_its_end_is_not_joined_to_the_next(tmp_path: pathlib.Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "train", "step": 1}\n{"kind": "train", "step": 2}'
    )
    log = metrics.MetricsLog(str(tmp_path), step=5)
    log.write("eval", 6, accuracy=0.5)
    log.close()
    assert [row["step"] for row in rows(tmp_path)] == [1, 6]


def test_rows_can_be_read_while_the_run_goes_on(tmp_path: pathlib.Path) -> None:
    log = metrics.MetricsLog(str(tmp_path), step=0)
    log.write("train", 1, loss=0.5, note="first")
    assert rows(tmp_path) == [{"kind": "train", "step": 1, "loss": 0.5, "note": "first"}]
    log.close()
