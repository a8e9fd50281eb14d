"""Tests of reading a workdir: unfinished, interrupted, damaged."""

import json
import pathlib

import numpy as np
import pytest

from tests.analysis import synthetic
from unnas_jax.analysis import results
from unnas_jax.core.errors import UserError


def test_a_half_written_last_line_is_ignored(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": 1, "epoch": 0.5}\n{"kind": "train", "st')
    records, skipped = results.read_metrics(path)
    assert [record["step"] for record in records["train"]] == [1]
    assert skipped == 0


def test_a_killed_launch_leaves_a_broken_line_and_repeated_steps(tmp_path: pathlib.Path) -> None:
    lines = [
        '{"kind": "train", "step": 1, "epoch": 0.1, "loss": 5}',
        '{"kind": "train", "step": 2, "epoch": 0.2, "loss": 4}',
        '{"kind": "tr{"kind": "start", "step": 0, "num_classes": 4}',
        '{"kind": "train", "step": 2, "epoch": 0.2, "loss": 3}',
        "[1]",
        '{"kind": "train", "step": 3}',
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(lines) + "\n")
    records, skipped = results.read_metrics(path)
    assert [(record["step"], record["loss"]) for record in records["train"]] == [(1, 5), (2, 3)]
    assert skipped == 3


def test_cells_come_from_the_alphas_until_there_is_a_genotype(tmp_path: pathlib.Path) -> None:
    synthetic.write(tmp_path)
    with_genotype = results.read(tmp_path)
    (tmp_path / "genotype.json").unlink()
    without = results.read(tmp_path)
    assert with_genotype.finished and not without.finished
    assert without.genotype == with_genotype.genotype
    assert without.softmax == with_genotype.softmax


def _truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _overwrite(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)


def _save_bare_array(path: pathlib.Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))


def _reshape(path: pathlib.Path) -> None:
    history = dict(np.load(path))
    np.savez(path, **{**history, "normal": history["normal"][:, :4]})


def _of_space(path: pathlib.Path, name: str) -> None:
    config = json.loads(path.read_text())
    config.setdefault("network", {})["space"] = name
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (lambda p: _truncate(p / "alphas.npz"), "alphas.npz"),
        (lambda p: _overwrite(p / "alphas.npz"), "alphas.npz"),
        (lambda p: _save_bare_array(p / "alphas.npz"), "alphas.npz"),
        (lambda p: (p / "alphas.npz").write_text("text"), "alphas.npz"),
        (lambda p: (p / "alphas.npz").write_bytes(b""), "alphas.npz"),
        (lambda p: np.savez(p / "alphas.npz", step=np.arange(3)), "alphas.npz"),
        (lambda p: _reshape(p / "alphas.npz"), "alphas.npz"),
        (lambda p: (p / "config.json").write_text("{"), "config.json"),
        (lambda p: (p / "config.json").write_text("[]"), "config.json"),
        (lambda p: (p / "config.json").unlink(), "config.json"),
        (lambda p: _of_space(p / "config.json", "mine"), "config.network.space='mine'"),
        (lambda p: (p / "genotype.json").write_text("{"), "genotype.json"),
        (lambda p: (p / "genotype.json").write_text(json.dumps({"schema": "x"})), "genotype.json"),
    ],
)
def test_damage_is_named_in_one_line(tmp_path: pathlib.Path, damage, name: str) -> None:
    synthetic.write(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=name) as caught:
        results.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_of_one_kind_of_cell_without_operations_are_no_history(
    tmp_path: pathlib.Path,
) -> None:
    synthetic.write(tmp_path)
    path = tmp_path / "alphas.npz"
    with np.load(path) as file:
        history = dict(file)
    mixing = {"mixing/normal": history["normal"], "mixing/reduce": history["reduce"][..., 0]}
    np.savez(path, **history, stage=np.zeros_like(history["step"]), **mixing)
    with pytest.raises(UserError, match="alphas.npz: damaged .weights of the shapes"):
        results.read_alphas(path)
