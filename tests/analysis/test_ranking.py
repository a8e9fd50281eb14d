"""Rankings: their noise against SciPy's Tukey test, what they say, and what they leave."""

import csv
import io
import json

import numpy as np
import pytest
from scipy import stats

from unnas_jax.analysis import ranking, ranking_page


def population(spread: float) -> dict[str, list[float]]:
    """The same draws whichever tests ran before: one in twenty of them would look significant."""
    rng = np.random.default_rng(1)
    return {f"net{k}": list(0.5 + spread * k + 0.01 * rng.normal(size=4)) for k in range(5)}


@pytest.mark.parametrize("spread", [0.002, 0.05])
def test_noise_is_that_of_tukey_s_test(spread: float) -> None:
    values = population(spread)
    found = ranking.rank("rotation", values)
    test = stats.tukey_hsd(*values.values())
    best = max(range(5), key=lambda k: np.mean(values[f"net{k}"]))
    for row in found.rows:
        k = int(row.name[-1])
        assert row.as_good == (k == best or test.pvalue[best, k] > 0.05)
    difference = test.statistic[0, 1]
    assert found.noise == pytest.approx(test.confidence_interval().high[0, 1] - difference)


def test_the_interval_of_two_architectures_is_that_of_student_s_t() -> None:
    values = {"a": [1.0, 2.0, 3.0], "b": [2.0, 4.0, 6.0]}
    found = ranking.rank("x", values)
    deviation = np.sqrt((np.var(values["a"], ddof=1) + np.var(values["b"], ddof=1)) / 2)
    expected = stats.t.ppf(0.975, 4) * deviation / np.sqrt(3)
    assert found.rows[0].half == pytest.approx(expected)
    # Of two groups Tukey's test is Student's.
    same = stats.ttest_ind(values["a"], values["b"]).pvalue > 0.05
    assert found.rows[1].as_good == same


def test_verdicts() -> None:
    single = ranking.rank("x", {"a": [1.0], "b": [2.0]})
    assert "one seed" in single.verdict and not single.rows[1].as_good
    assert "all differences are within noise" in ranking.rank("x", population(0.0001)).verdict
    assert "net4 is better than all others" in ranking.rank("x", population(0.5)).verdict
    # Without draws every difference counts, and equal ones share a rank.
    exact = ranking.rank("parameters", {"a": [2.0, 2.0], "b": [2.0, 2.0], "c": [1.0, 1.0]})
    assert [row.rank for row in exact.rows] == [1, 1, 3]
    assert "1 of 2 others are within noise" in exact.verdict


def test_several_judges() -> None:
    first = ranking.rank("rotation", {"a": [0.9, 0.9], "b": [0.8, 0.8], "c": [0.7, 0.7]})
    second = ranking.rank("synflow", {"a": [3.0, 3.0], "b": [1.0, 1.0], "c": [2.0, 2.0]})
    both = [first, second]
    assert ranking.mean_ranks(both) == {"a": 1.0, "b": 2.5, "c": 2.5}
    assert ranking.agreement(both) == [("rotation", "synflow", pytest.approx(0.5))]
    cells = {"a": "|x|", "b": "<b>", "c": "z"}
    text = ranking_page.text(both)
    assert "90.00%" in text and "agree with rho 0.50" in text
    rows = list(csv.DictReader(io.StringIO(ranking_page.as_csv(both, cells))))
    assert len(rows) == 12 and rows[0]["cell"] == "|x|" and float(rows[0]["value"]) == 0.9
    document = ranking_page.as_json(both, cells)
    assert json.loads(json.dumps(document, allow_nan=False))["judges"][1]["judge"] == "synflow"
    page = ranking_page.page(both, cells, images="<i>", facts=[("a", "b", "")], warnings=["mind"])
    assert "&lt;b&gt;" in page and "<i>" not in page and "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")
