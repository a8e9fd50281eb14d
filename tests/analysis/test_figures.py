"""Figures 2 to 5: which comparisons there are, their numbers, the CSV of other tools, mistakes."""

import csv
import json
import pathlib
import re

import numpy as np
import pytest

from unnas_jax.analysis import accuracies, figures, statistics
from unnas_jax.commands import figures as command
from unnas_jax.core.errors import UserError

HEADER = "architecture,task,dataset,seed,accuracy,space\n"


def rows(count: int = 12, datasets: tuple[str, ...] = ("photos", "cifar10")) -> str:
    """A synthetic population: pretext accuracies follow the labels with some noise."""
    rng = np.random.default_rng(0)
    quality, lines = rng.normal(size=count), []
    for dataset in datasets:
        for task in ("classification", "rotation", "jigsaw"):
            for seed in range(2):
                values = 0.5 + 0.05 * quality + 0.02 * rng.normal(size=count)
                lines += [
                    f"net{k},{task},{dataset},{seed},{value:.6f},darts"
                    for k, value in enumerate(values)
                ]
    return HEADER + "\n".join(lines) + "\n"


def test_within_and_across_datasets(tmp_path: pathlib.Path) -> None:
    (tmp_path / "all.csv").write_text(rows())
    out = tmp_path / "out"
    _, written = figures.write([str(tmp_path / "all.csv")], str(out), kinds=("svg",))
    wheres = ("photos", "cifar10", "photos_to_cifar10", "cifar10_to_photos")
    names = {f"{kind}_{where}.svg" for kind in ("scatter", "random") for where in wheres}
    names |= {"correlations.csv", "random_experiments.csv", "accuracies.csv"}
    assert {pathlib.Path(path).name for path in written} == names
    with open(out / "correlations.csv") as file:
        found = {(r["source_dataset"], r["task"], r["target_dataset"]): r
                 for r in csv.DictReader(file)}  # fmt: skip
    # Labels against themselves say nothing; against those of another dataset they do.
    assert ("photos", "classification", "photos") not in found
    assert ("photos", "classification", "cifar10") in found
    table = accuracies.table(accuracies.read([tmp_path / "all.csv"]))
    labels = table["darts", "cifar10", "classification"]
    pretext = table["darts", "photos", "rotation"]
    order = sorted(labels)
    expected = statistics.spearman([labels[k] for k in order], [pretext[k] for k in order])
    row = found["photos", "rotation", "cifar10"]
    assert (float(row["rho"]), float(row["low"])) == (expected.rho, expected.low)
    # What was written is what another start would read.
    assert accuracies.read([out / "accuracies.csv"]) == sorted(
        accuracies.read([tmp_path / "all.csv"])
    )


def test_every_picture_in_every_format(tmp_path: pathlib.Path) -> None:
    (tmp_path / "one.csv").write_text(rows(5, ("photos",)))
    _, written = figures.write([str(tmp_path / "one.csv")], str(tmp_path))
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", ".csv": b""}
    found = [pathlib.Path(path).name for path in written]
    assert len([name for name in found if name.startswith(("scatter", "random_photos"))]) == 6
    for path in map(pathlib.Path, written):
        assert path.read_bytes().startswith(starts[path.suffix])


def test_a_network_that_did_not_learn_squeezes_no_others(tmp_path: pathlib.Path) -> None:
    """It counts for rho, and is an arrow at the edge."""
    table = rows(12, ("photos",)) + "".join(
        f"zero,{task},photos,{seed},0.1,darts\n"
        for task in ("classification", "rotation", "jigsaw")
        for seed in range(2)
    )
    (tmp_path / "one.csv").write_text(table)
    found, _ = figures.write([str(tmp_path / "one.csv")], str(tmp_path), kinds=("svg",))
    figure = figures.draw_scatter([c for c in found if c.source == c.target])
    left, right = figure.axes[0].get_xlim()
    assert left > 30 and right < 75
    points, arrow = figure.axes[0].collections
    assert len(points.get_offsets()) == 12 and len(arrow.get_offsets()) == 1
    assert arrow.get_offsets()[0, 1] == pytest.approx(10)


def test_seeds_are_averaged_and_spaces_kept_apart(tmp_path: pathlib.Path) -> None:
    text = HEADER + "a,rotation,d,0,0.2,darts\na,rotation,d,1,0.4,darts\na,rotation,d,0,0.9,other\n"
    (tmp_path / "x.csv").write_text(text)
    table = accuracies.table(accuracies.read([tmp_path / "x.csv"]))
    assert table["darts", "d", "rotation"]["a"] == pytest.approx(0.3)
    assert table["other", "d", "rotation"]["a"] == 0.9


def test_results_of_a_sweep(tmp_path: pathlib.Path) -> None:
    """Only architectures that have both tasks count, so that an unfinished sweep can be drawn."""
    for k in range(5):
        for task, value in (("classification", k / 10), ("rotation", k / 5)):
            if (k, task) == (4, "rotation"):
                continue
            path = tmp_path / "units" / f"darts-{k}" / f"{task}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            unit = {"space": "darts", "dataset": "d", "task": task, "architecture": f"darts-{k}",
                    "seeds": [0, 1], "values": [value, value]}  # fmt: skip
            path.write_text(json.dumps(unit))
    comparisons = figures.compare(accuracies.table(accuracies.read([tmp_path])))
    found = next(c for c in comparisons if c.task == "rotation")
    assert found.names == ("darts-0", "darts-1", "darts-2", "darts-3")
    assert found.correlation.rho == pytest.approx(1)
    assert found.line is not None and found.line.slope == pytest.approx(2, abs=1e-3)
    (tmp_path / "units" / "darts-0" / "rotation.json").write_text('{"space": "darts"}')
    with pytest.raises(UserError, match="not the result of a unit"):
        accuracies.read([tmp_path])


@pytest.mark.parametrize(
    "text, words",
    [
        ("architecture,task,dataset,seed\na,b,c,0\n", "no column accuracy"),
        (HEADER + "a,rotation,d,0,71.3,darts\n", "line 2: accuracy 71.3: give it from 0 to 1"),
        (HEADER + "a,rotation,d,zero,0.5,darts\n", "line 2: .*zero"),
        (HEADER, "has no rows"),
        (HEADER + "a,rotation,d,0,0.5,darts\n" * 2, "is there twice"),
        (HEADER + "a,rotation,d,0,0.5,darts\n", "no 3 architectures have both"),
    ],
)
def test_mistakes_end_in_one_line(text: str, words: str, tmp_path: pathlib.Path, capsys) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    assert command.main([str(path), f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(words, error), error
    assert not (tmp_path / "out").exists()


def test_a_directory_without_results(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="no finished unit"):
        accuracies.read([tmp_path])
    with pytest.raises(UserError, match="no such file"):
        accuracies.read([tmp_path / "nowhere"])
