"""Ranks of architectures by the means over seeds, and differences that are within noise."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Judged:
    """An architecture by one judge.

    Attributes:
      name: of the architecture.
      values: one for each seed; higher is better.
      mean: of the values.
      half: half the width of the mean's interval (Student's t with the deviation that all
        architectures share); NaN with one seed.
      rank: from 1, by the mean; equal means share the least.
      as_good: whether its distance to the best is within noise; see `Ranking.noise`.
    """

    name: str
    values: tuple[float, ...]
    mean: float
    half: float
    rank: int
    as_good: bool


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The ranking by one judge.

    Attributes:
      judge: a task or a score.
      rows: the architectures, the best first.
      deviation: of a value about its architecture's mean, pooled; NaN with one seed.
      noise: the difference of means that chance alone exceeds for some pair of equal architectures
        in 5% of such experiments (Tukey's honest significant difference); NaN with one seed.
    """

    judge: str
    rows: tuple[Judged, ...]
    deviation: float
    noise: float

    @property
    def verdict(self) -> str:
        """The meaning of the differences, in a sentence."""
        best = self.rows[0]
        if math.isnan(self.noise):
            return "one seed: nothing tells differences from noise; use two or more"
        equal = [row.name for row in self.rows if row.as_good]
        if len(self.rows) == 1:
            return "a single architecture: nothing to compare"
        if len(equal) == len(self.rows):
            return "all differences are within noise: no architecture is better than another"
        if len(equal) == 1:
            return f"{best.name} is better than all others, beyond noise"
        return (
            f"{best.name} leads, but {len(equal) - 1} of {len(self.rows) - 1} others are within "
            f"noise of it: {', '.join(equal[1:4])}{' ...' if len(equal) > 4 else ''}"
        )


def rank(judge: str, values: Mapping[str, Sequence[float]]) -> Ranking:
    """The ranking by one judge.

    Args:
      judge: its name.
      values: of every architecture one for each seed, equally many.
    """
    names = list(values)
    table = np.array([values[name] for name in names], np.float64)
    count, seeds = table.shape
    means = table.mean(1)
    deviation = noise = half = math.nan
    if seeds > 1:
        degrees = count * (seeds - 1)
        deviation = float(np.sqrt(((table - means[:, None]) ** 2).sum() / degrees))
        error = deviation / math.sqrt(seeds)
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, degrees) * error)
        if count > 1:
            noise = float(stats.studentized_range.ppf(CONFIDENCE, count, degrees) * error)
        else:
            noise = 0.0
    order = np.argsort(-means, kind="stable")
    best = means[order[0]]
    rows = tuple(
        Judged(
            names[k],
            tuple(table[k].tolist()),
            float(means[k]),
            half,
            1 + int((means > means[k]).sum()),
            bool(not math.isnan(noise) and best - means[k] <= noise),
        )
        for k in order.tolist()
    )
    return Ranking(judge, rows, deviation, noise)


def mean_ranks(rankings: Sequence[Ranking]) -> dict[str, float]:
    """The mean rank of every architecture, the best first."""
    ranks: dict[str, list[int]] = {}
    for ranking in rankings:
        for row in ranking.rows:
            ranks.setdefault(row.name, []).append(row.rank)
    found = {name: float(np.mean(numbers)) for name, numbers in ranks.items()}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def agreement(rankings: Sequence[Ranking]) -> list[tuple[str, str, float]]:
    """Spearman's rho between the means of every two judges."""
    found = []
    for k, first in enumerate(rankings):
        for second in rankings[k + 1 :]:
            other = {row.name: row.mean for row in second.rows}
            x = [row.mean for row in first.rows]
            y = [other[row.name] for row in first.rows]
            constant = len(set(x)) < 2 or len(set(y)) < 2
            rho = math.nan if constant else float(stats.spearmanr(x, y).statistic)
            found.append((first.judge, second.judge, rho))
    return found
