"""The results in docs/results/scores: correlations that follow from their rows."""

import csv
import pathlib

import numpy as np
import pytest
from scipy import stats

from tests.conftest import ROOT
from unnas_jax.analysis import published, statistics
from unnas_jax.commands import figures as command

FOLDER = ROOT / "docs" / "results" / "scores"
NAMES = sorted(p.name.removesuffix("_correlations.csv") for p in FOLDER.glob("*_correlations.csv"))


@pytest.mark.parametrize("name", NAMES)
def test_correlations_follow_from_the_rows(name: str) -> None:
    columns = published.read(FOLDER / f"{name}.csv").columns
    rows = list(csv.DictReader((FOLDER / f"{name}_correlations.csv").read_text().splitlines()))
    assert rows
    for row in rows:
        x, y = columns[row["score"]], columns[row["column"]]
        assert len(x) == int(row["cells"])
        assert float(row["rho"]) == pytest.approx(stats.spearmanr(x, y).statistic, abs=2e-4)
        assert float(row["rho_low"]) < float(row["rho"]) < float(row["rho_high"])


def test_the_page_on_digits_says_what_its_rows_say() -> None:
    folder = ROOT / "docs" / "results" / "digits"
    page = (folder / "README.md").read_text()
    tasks: dict[str, dict[str, float]] = {}
    for row in csv.DictReader((folder / "nasbench201.csv").read_text().splitlines()):
        tasks.setdefault(row["task"], {})[row["architecture"]] = float(row["accuracy"])
    labels = tasks["classification"]
    assert len(labels) == 20
    for task, values in tasks.items():
        low, high = 100 * min(values.values()), 100 * max(values.values())
        assert f"| {task} | {low:.1f} to {high:.1f}% |" in page
        if task != "classification":
            rho = stats.spearmanr([values[cell] for cell in labels], list(labels.values()))
            assert f"| {rho.statistic:.2f} [" in page


def test_the_page_on_few_labels_says_what_its_rows_say() -> None:
    folder = ROOT / "docs" / "results" / "few_labels"
    page = " ".join((folder / "README.md").read_text().replace("**", "").split())
    values: dict[tuple[str, str], list[float]] = {}
    for row in csv.DictReader((folder / "cifar10.csv").read_text().splitlines()):
        values.setdefault((row["labels"], row["initial"]), []).append(100 * float(row["accuracy"]))
    for labels, share in (("0.01", "1%"), ("0.1", "10%")):
        cells, gains = [], []
        for initial in ("scratch", "rotation", "contrastive"):
            some = np.array(values[labels, initial])
            assert len(some) == 3
            cells.append(f"{some.mean():.1f}% +- {some.std(ddof=1):.1f}")
            gain = some - values[labels, "scratch"]
            if initial != "scratch":
                low, high = stats.t.interval(0.95, 2, gain.mean(), stats.sem(gain))
                gains.append((f"{gain.mean():.1f}", f"[{low:.1f}, {high:.1f}]"))
        assert f"| {share} | {' | '.join(cells)} |" in page
        assert all(f"{mean} " in page and interval in page for mean, interval in gains)


def test_the_figures_are_redrawn(tmp_path: pathlib.Path, monkeypatch, capsys) -> None:
    """By the one command that the page names."""
    monkeypatch.setattr(statistics, "_RESAMPLES", 50)
    table = FOLDER / "nasbench101_imagenet.csv"
    assert command.main([str(table), f"--out={tmp_path}"]) == 0
    assert "gennas" in capsys.readouterr().out
    assert (tmp_path / "scatter_scores_to_imagenet2012.png").stat().st_size > 10_000


def test_the_page_on_collapse_says_what_its_rows_say() -> None:
    folder = ROOT / "docs" / "results" / "collapse"
    page = (folder / "README.md").read_text()
    found: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader((folder / "s3_rotation.csv").read_text().splitlines()):
        normal, _ = row["cell"].split("+")
        assert normal.count("skip_connect") == int(row["skips_normal"])
        found.setdefault(row["method"], []).append(row)

    def values(method: str, key: str) -> np.ndarray:
        return np.array([float(row[key]) for row in found[method]])

    for method, rows in found.items():
        assert [row["seed"] for row in rows] == ["0", "1", "2"]
        loss = values(method, "loss")
        more = loss - values("darts", "loss")
        cells = [
            f"`{method}`",
            " ".join(row["skips_normal"] for row in rows),
            f"{values(method, 'eigenvalue').mean():.3f}",
            f"{100 * values(method, 'accuracy').mean():.1f}%",
            f"{loss.mean():.3f} +- {loss.std(ddof=1):.3f}",
            "",
        ]
        if method != "darts":
            low, high = stats.t.interval(0.95, 2, more.mean(), stats.sem(more))
            cells[-1] = f"{more.mean():.3f} [{low:.3f}, {high:.3f}]"
        assert f"| {' | '.join(cells)} |".replace("|  |", "| |") in page

    rows = list(csv.DictReader((folder / "s3_random.csv").read_text().splitlines()))
    chance = 100 * np.array([float(row["accuracy_labels"]) for row in rows])
    assert f"| random | {len(rows)} | {chance.mean():.1f}% +- {chance.std(ddof=1):.1f} | |" in page
    for method in found:
        own = 100 * values(method, "accuracy_labels")
        interval = stats.ttest_ind(own, chance, equal_var=False).confidence_interval(0.95)
        assert (
            f"| `{method}` | 3 | {own.mean():.1f}% +- {own.std(ddof=1):.1f} | "
            f"{own.mean() - chance.mean():.1f} points [{interval.low:.1f}, {interval.high:.1f}] |"
        ) in page


def test_the_page_on_collapse_says_what_the_alphas_ended_in() -> None:
    folder = ROOT / "docs" / "results" / "collapse"
    page = (folder / "README.md").read_text()
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in csv.DictReader((folder / "ends.csv").read_text().splitlines()):
        normal, reduce = row["cell"].split("+")
        for name, cell in (("normal", normal), ("reduce", reduce)):
            assert cell.count(row["operation"]) == int(row[name])
        found.setdefault((row["space"], row["method"]), []).append(row)
    assert len(found) >= 11

    def values(rows: list[dict[str, str]], *keys: str) -> np.ndarray:
        return np.array([sum(float(row[key]) for key in keys) for row in rows])

    def interval(more: np.ndarray) -> str:
        if not more.any():
            return "0"
        low, high = stats.t.interval(0.95, 2, more.mean(), stats.sem(more))
        return f"{more.mean():.2f} [{low:.2f}, {high:.2f}]"

    for (space, method), rows in found.items():
        assert [row["seed"] for row in rows] == ["0", "1", "2"]
        base, counts = found[space, "darts"], values(rows, "normal", "reduce")
        shares = values(rows, "share_normal"), values(rows, "share_reduce")
        cells = [
            f"`{method}`",
            " ".join(str(int(count)) for count in counts),
            ", ".join(f"{share.mean():.2f}" for share in shares),
            f"{values(rows, 'loss').mean():.3f}",
            f"{100 * values(rows, 'accuracy').mean():.1f}%",
        ]
        line = f"| {' | '.join(cells)} | | |"
        if method != "darts":
            of_counts = interval(counts - values(base, "normal", "reduce"))
            of_shares = interval(shares[0] - values(base, "share_normal"))
            line = f"| {' | '.join(cells)} | {of_counts} | {of_shares} |"
        assert line in page
