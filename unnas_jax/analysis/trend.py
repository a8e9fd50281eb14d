"""The line through a scatter plot: robust linear regression."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import HuberRegressor

_HUBER = 1.35  # Deviations from which a residual counts linearly: 95% efficient for normal ones.


@dataclasses.dataclass(frozen=True)
class Line:
    """y = slope * x + intercept."""

    slope: float
    intercept: float


def huber_line(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> Line | None:
    """The robust linear regression of y on x (Huber 1981), with its scale estimated along.

    None where there is no line: fewer than two architectures, or all at one x.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(x) < 2 or np.ptp(x) == 0:
        return None
    if np.ptp(y) == 0:
        return Line(0.0, float(y[0]))
    # Standardised, so that the optimiser's tolerances mean the same for every accuracy.
    a, b = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    fit = HuberRegressor(epsilon=_HUBER, alpha=0.0, max_iter=1000).fit(a[:, None], b)
    slope = float(fit.coef_[0] * y.std() / x.std())
    return Line(slope, float(y.mean() + fit.intercept_ * y.std() - slope * x.mean()))
