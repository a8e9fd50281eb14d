"""Statistics between tasks over a sample of architectures (paper, section 5.1)."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

_RESAMPLES = 5000
_RESAMPLES_OF_PAIRS = 1000  # Kendall's tau is not vectorised.
_MANY = 1000  # Architectures, of which fewer resamples without corrections give the same interval.
_RESAMPLES_OF_MANY = 500
_BATCH = 500  # Resamples that are ranked at once.


@dataclasses.dataclass(frozen=True)
class Correlation:
    """The rank correlation of two measurements of the same architectures.

    Attributes:
      rho: Spearman's, or Kendall's tau; NaN where one of them is the same for all.
      low, high: its bootstrap interval.
      count: architectures.
    """

    rho: float
    low: float
    high: float
    count: int


@dataclasses.dataclass(frozen=True)
class RandomExperiments:
    """The results of random experiments, a row for each size.

    Attributes:
      sizes: architectures m that an experiment draws.
      draws: experiments of that size, ceil(n / m).
      means, deviations: of the target accuracies of the architectures that they choose.
    """

    sizes: np.ndarray
    draws: np.ndarray
    means: np.ndarray
    deviations: np.ndarray


def _rho(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's rho of rows (..., count): Pearson's of the ranks, equal values sharing theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Rows without any variation, which give NaN.
        a, b = (stats.rankdata(values, axis=-1) for values in (x, y))
        a, b = (ranks - ranks.mean(axis=-1, keepdims=True) for ranks in (a, b))
        with np.errstate(invalid="ignore", divide="ignore"):
            norms = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
            return np.where(norms > 0, (a * b).sum(axis=-1) / norms, np.nan)


def spearman(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Correlation:
    """Spearman's rho with a bootstrap interval over architectures (BCa, Efron 1987).

    For more than 1,000 architectures it is the interval of percentiles.

    Resampling makes ties, which pull rho towards zero; the interval's bias correction allows for
    that. Where no interval exists (all ranks agree, fewer than three architectures), it is NaN.

    Args:
      x, y: (count,) a value for each architecture.
      confidence: of the interval.
      seed: of the resampling.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    rho = float(_rho(x, y))
    low, high = _interval(x, y, _rho, rho, _RESAMPLES, confidence, seed)
    return Correlation(rho, low, high, len(x))


def kendall(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Correlation:
    """Kendall's tau-b with an interval; the arguments are those of `spearman`."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    tau = float(_tau(x, y))
    low, high = _interval(x, y, _tau, tau, _RESAMPLES_OF_PAIRS, confidence, seed)
    return Correlation(tau, low, high, len(x))


def _tau(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of rows (..., count)."""
    rows = zip(x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]), strict=True)
    found = [stats.kendalltau(a, b).statistic for a, b in rows]
    return np.reshape(found, x.shape[:-1])


def _interval(
    x: np.ndarray,
    y: np.ndarray,
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    value: float,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[float, float]:
    """The ends of the BCa interval of a statistic of rows; NaN where there is none."""
    if len(x) < 3 or not abs(value) < 1:
        return math.nan, math.nan
    many = len(x) > _MANY
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It gives NaN where there is no interval.
        found = stats.bootstrap(
            (x, y),
            lambda a, b, axis: statistic(np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1)),
            paired=True,
            vectorized=True,
            n_resamples=min(resamples, _RESAMPLES_OF_MANY) if many else resamples,
            batch=_BATCH,
            confidence_level=confidence,
            # BCa leaves each architecture out in turn, which takes the square of their number.
            method="percentile" if many else "BCa",
            rng=np.random.default_rng(seed),
        )
    return float(found.confidence_interval[0]), float(found.confidence_interval[1])


def experiment_sizes(count: int) -> list[int]:
    """Sizes from 1 to `count`, four to an octave, for a logarithmic axis."""
    steps = 2.0 ** (np.arange(4 * math.ceil(math.log2(max(count, 2))) + 1) / 4)
    # Sizes next to the last one would say the same again.
    return sorted({round(size) for size in steps if size < 0.9 * count} | {count})


def random_experiments(
    pretext: Sequence[float] | np.ndarray,
    target: Sequence[float] | np.ndarray,
    *,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
) -> RandomExperiments:
    """The random experiment efficiency curve (Bergstra and Bengio 2012; paper, section 5.1).

    An experiment of size m draws m different architectures, chooses the one with the highest
    pretext accuracy (of equal ones the first drawn), and looks at its target accuracy. There are
    ceil(n / m) experiments of each size, independent of each other.

    Args:
      pretext, target: (n,) an accuracy for each architecture.
      sizes: each from 1 to n; None: `experiment_sizes`.
      seed: of the draws, which are the same for every pretext task.
    """
    pretext, target = np.asarray(pretext, np.float64), np.asarray(target, np.float64)
    count = len(pretext)
    sizes = experiment_sizes(count) if sizes is None else sizes
    draws, means, deviations = [], [], []
    for size in sizes:
        chosen = []
        for number in range(math.ceil(count / size)):
            drawn = np.random.default_rng((seed, size, number)).permutation(count)[:size]
            chosen.append(target[drawn[np.argmax(pretext[drawn])]])
        draws.append(len(chosen))
        means.append(np.mean(chosen))
        deviations.append(np.std(chosen))
    return RandomExperiments(
        np.array(sizes), np.array(draws), np.array(means), np.array(deviations)
    )
