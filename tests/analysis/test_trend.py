import math

import numpy as np
import pytest
from scipy import optimize

from unnas_jax.analysis import trend


def test_the_line_ignores_outliers_and_fits_what_huber_s_loss_says() -> None:
    x = np.linspace(0.2, 0.9, 40)
    y = 0.5 * x + 0.1
    y[::10] += 3.0
    line = trend.huber_line(x, y)
    assert line is not None
    assert (line.slope, line.intercept) == pytest.approx((0.5, 0.1), abs=1e-3)
    # Noise: the same minimum as Huber's loss with the scale that was estimated.
    rng = np.random.default_rng(3)
    y = 2.0 * x - 1.0 + 0.1 * rng.standard_t(2, size=40)
    line = trend.huber_line(x, y)
    assert line is not None

    def objective(of: np.ndarray) -> float:
        slope, intercept, log_scale = of
        scale = math.exp(log_scale)
        z = np.abs(y - slope * x - intercept) / scale
        loss = np.where(z < 1.35, z**2, 2 * 1.35 * z - 1.35**2)
        return float(np.sum(scale + scale * loss))

    best = optimize.minimize(
        objective,
        [2.0, -1.0, -2.0],
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 10_000},
    )
    assert (line.slope, line.intercept) == pytest.approx(best.x[:2], abs=2e-3)


def test_no_line_through_one_point() -> None:
    assert trend.huber_line([0.5, 0.5], [0.1, 0.2]) is None
    assert trend.huber_line([0.5], [0.1]) is None
    assert trend.huber_line([0.1, 0.5], [0.3, 0.3]) == trend.Line(0.0, 0.3)
