"""Statistics against scipy, against cases computed by hand, and on populations with a known rho."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from unnas_jax.analysis import statistics


def test_rho_by_hand_without_ties() -> None:
    # Ranks 1 2 3 4 5 and 2 1 4 3 5: 1 - 6 * (1 + 1 + 1 + 1) / (5 * 24).
    found = statistics.spearman([10, 20, 30, 40, 50], [0.2, 0.1, 0.4, 0.3, 0.5])
    assert found.rho == pytest.approx(0.8) and found.count == 5


def test_rho_by_hand_with_ties() -> None:
    # Ranks 1, 2.5, 2.5, 4 and 1.5, 1.5, 3.5, 3.5; about their mean 2.5: -1.5, 0, 0, 1.5 and
    # -1, -1, 1, 1. Products sum to 3, squares to 4.5 and 4.
    found = statistics.spearman([1, 2, 2, 3], [5, 5, 7, 7])
    assert found.rho == pytest.approx(3 / math.sqrt(4.5 * 4))


def test_rho_against_scipy() -> None:
    rng = np.random.default_rng(0)
    for count in (5, 24, 500):
        x, y = rng.normal(size=count), rng.integers(0, 4, count)  # Many ties.
        rho = statistics._rho(x, y)
        assert rho == pytest.approx(stats.spearmanr(x, y).statistic)


def test_agreement_and_constants() -> None:
    found = statistics.spearman([1, 2, 3, 4], [2, 3, 5, 9])
    assert found.rho == pytest.approx(1) and math.isnan(found.low)
    assert statistics.spearman([4, 3, 2, 1], [2, 3, 5, 9]).rho == pytest.approx(-1)
    found = statistics.spearman([1, 2, 3, 4], [0.5, 0.5, 0.5, 0.5])
    assert math.isnan(found.rho) and math.isnan(found.high)


def population(rng: np.random.Generator, rho: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws from a normal population with this Spearman's rho (Pearson, 1907)."""
    r = 2 * math.sin(math.pi * rho / 6)
    x = rng.normal(size=count)
    return x, r * x + math.sqrt(1 - r * r) * rng.normal(size=count)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_interval_covers_a_known_rho(rho: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_RESAMPLES", 400)
    rng, covered, width = np.random.default_rng(1), 0, []
    for _ in range(100):
        found = statistics.spearman(*population(rng, rho, 60))
        assert found.low < found.rho < found.high
        covered += found.low <= rho <= found.high
        width.append(found.high - found.low)
    # Of 95% intervals 88 to 99 of 100 cover (three standard errors), were they exact.
    assert covered >= 88
    assert np.mean(width) < 0.6
    assert covered <= 99 or rho == 0.9


def test_a_large_sample_pins_rho_down() -> None:
    found = statistics.spearman(*population(np.random.default_rng(2), 0.8, 500))
    assert found.low < 0.8 < found.high and found.high - found.low < 0.1
    again = statistics.spearman(*population(np.random.default_rng(2), 0.8, 500))
    assert again == found  # Nothing is drawn but from the seed.


def test_random_experiments_by_hand() -> None:
    pretext, target = [0.1, 0.4, 0.3, 0.2], [0.5, 0.6, 0.9, 0.7]
    found = statistics.random_experiments(pretext, target, sizes=[1, 3, 4])
    assert found.draws.tolist() == [4, 2, 1]  # ceil(4 / m).
    # All four: the best by pretext accuracy is the second.
    assert found.means[2] == 0.6 and found.deviations[2] == 0
    # Two draws of three: the second is missing from an experiment, which then finds the third,
    # or it is found.
    possible = {(np.mean(pair), np.std(pair)) for pair in itertools.product((0.6, 0.9), repeat=2)}
    assert (found.means[1], found.deviations[1]) in possible


def test_random_experiments_on_average() -> None:
    """The expected target accuracy over all subsets of a size, by brute force."""
    rng = np.random.default_rng(4)
    pretext, target = rng.normal(size=7), rng.normal(size=7)
    for size in (1, 2, 5):
        subsets = [list(s) for s in itertools.combinations(range(7), size)]
        expected = np.mean([target[s[np.argmax(pretext[s])]] for s in subsets])
        runs = [
            statistics.random_experiments(pretext, target, sizes=[size], seed=seed)
            for seed in range(400)
        ]
        assert np.mean([run.means[0] for run in runs]) == pytest.approx(expected, abs=0.1)


def test_equal_pretext_accuracies_do_not_favour_anybody() -> None:
    """With nothing to go by, the choice is a random architecture."""
    target = np.arange(10.0)
    runs = [
        statistics.random_experiments(np.zeros(10), target, sizes=[5], seed=seed)
        for seed in range(300)
    ]
    assert np.mean([run.means[0] for run in runs]) == pytest.approx(4.5, abs=0.5)


def test_sizes_reach_from_one_to_all() -> None:
    for count in (3, 24, 500):
        sizes = statistics.experiment_sizes(count)
        assert sizes[0] == 1 and sizes[-1] == count and sizes == sorted(set(sizes))
