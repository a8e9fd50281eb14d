"""Tests of the search's optimizers against loops in NumPy."""

import math
from typing import Any

import jax
import numpy as np
import optax
import pytest

from unnas_jax.config.sections import Alphas, Weights
from unnas_jax.learning import optim


@pytest.mark.parametrize(("peak", "final"), [(0.1, 0.0), (0.025, 0.001)])
def test_cosine_is_constant_within_an_epoch(peak: float, final: float) -> None:
    schedule = optim.epoch_cosine(peak, final, epochs=5, steps_per_epoch=7)
    for step in range(35):
        epoch = step // 7
        expected = final + 0.5 * (peak - final) * (1 + math.cos(math.pi * epoch / 5))
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5)
    assert float(schedule(0)) == pytest.approx(peak)
    assert float(schedule(35)) == pytest.approx(final, abs=1e-8)
    # As it is called inside a step.
    assert float(jax.jit(schedule)(8)) == pytest.approx(float(schedule(8)))


def trajectory(
    optimizer: optax.GradientTransformation, start: Any, gradients: list[Any]
) -> list[Any]:
    """The values after each step."""
    values, state, visited = start, optimizer.init(start), []
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, values)
        values = optax.apply_updates(values, updates)
        visited.append(values)
    return visited


def random_trees(count: int, scale: float) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {
            "a": (scale * rng.standard_normal((3, 4))).astype(np.float32),
            "b": (scale * rng.standard_normal(5)).astype(np.float32),
        }
        for _ in range(count)
    ]


def test_weights_are_clipped_decayed_and_carried_on() -> None:
    start, *gradients = random_trees(6, 1.5)
    # The first gradient stays below the norm, the others are clipped to it.
    gradients[0] = {name: 0.1 * value for name, value in gradients[0].items()}
    section = Weights(0.1, clip_norm=3.0, weight_decay=0.05, momentum=0.9)
    rates = [0.1, 0.1, 0.06, 0.06, 0.01]
    schedule = optax.piecewise_constant_schedule(0.1, {2: 0.6, 4: 1 / 6})
    visited = trajectory(optim.optimizer(section, schedule), start, gradients)

    values = {name: value.astype(np.float64) for name, value in start.items()}
    velocity = {name: np.zeros_like(value) for name, value in values.items()}
    norms = []
    for gradient, rate, after in zip(gradients, rates, visited, strict=True):
        norm = math.sqrt(sum(float(np.sum(g.astype(np.float64) ** 2)) for g in gradient.values()))
        norms.append(norm)
        for name, value in gradient.items():
            g = value.astype(np.float64) * min(1.0, 3.0 / norm) + 0.05 * values[name]
            velocity[name] = 0.9 * velocity[name] + g
            values[name] = values[name] - rate * velocity[name]
            np.testing.assert_allclose(after[name], values[name], rtol=1e-5, atol=1e-6)
    assert norms[0] < 3.0 < min(norms[1:])


def test_alphas_follow_adam_with_coupled_decay() -> None:
    start, *gradients = random_trees(6, 1.0)
    section = Alphas(learning_rate=0.02, b1=0.5, b2=0.999, weight_decay=0.3)
    visited = trajectory(optim.optimizer(section, section.learning_rate), start, gradients)

    values = {name: value.astype(np.float64) for name, value in start.items()}
    first = {name: np.zeros_like(value) for name, value in values.items()}
    second = {name: np.zeros_like(value) for name, value in values.items()}
    for t, (gradient, after) in enumerate(zip(gradients, visited, strict=True), start=1):
        for name, value in gradient.items():
            g = value + 0.3 * values[name]
            first[name] = 0.5 * first[name] + 0.5 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            step = (first[name] / (1 - 0.5**t)) / (np.sqrt(second[name] / (1 - 0.999**t)) + 1e-8)
            values[name] = values[name] - 0.02 * step
            np.testing.assert_allclose(after[name], values[name], rtol=1e-4, atol=1e-6)
