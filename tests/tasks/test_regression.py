"""Regression as a task: its targets belong to images; its score by the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tasks import datasets
from unnas_jax.core.errors import UserError
from unnas_jax.layers.heads import StageHeads
from unnas_jax.tasks import registry

IMAGES = datasets.images(4, 16)


@pytest.fixture(scope="module")
def task():
    return registry.task("regression", crop=16)


@pytest.fixture(scope="module")
def make(task):
    """The examples of images by their numbers, and the program that makes them."""
    program = jax.jit(lambda key, batch: task.examples(key, batch, train=True))

    def make(numbers, key=0):
        batch = {"image": IMAGES[numbers], "record": np.array(numbers, np.int32)}
        return jax.device_get(program(jax.random.key(key), batch))

    return make


def test_targets_stay_with_their_images_and_noise_is_new(make) -> None:
    first, again = make([0, 1, 2, 3]), make([3, 1, 0, 2], key=1)
    for one, other, channels in zip(first.targets, again.targets, (80, 32, 80), strict=True):
        assert one.shape == (4, 8, 8, channels)
        np.testing.assert_array_equal(one[[3, 1, 0, 2]], other)
        assert (one[0] != one[1]).any()
    noise = first.inputs[[3, 1, 0, 2]] - again.inputs
    assert np.std(noise) == pytest.approx(0.2 * np.sqrt(2), rel=0.1)


def test_its_pictures_are_the_image_and_three_maps(task, make) -> None:
    rows = task.panels(make([0, 1, 2, 3]), None)
    sides = [[panel.image.shape for panel in row] for row in rows]
    assert sides == [[(16, 16, 3), *[(8, 8, 3)] * 3]] * 4
    assert all(panel.image.dtype == np.uint8 and np.ptp(panel.image) > 0 for panel in rows[0])


def test_the_score_is_the_weighted_squared_error(task, make) -> None:
    examples = make([0, 1, 2, 3])
    examples = examples.replace(weights=np.float32([1, 1, 1, 0]))
    rng = np.random.default_rng(0)
    outputs = [rng.normal(size=target.shape).astype(np.float32) for target in examples.targets]
    weighted = zip((0.25, 0.5, 1.0), outputs, examples.targets, strict=True)
    error = sum(w * np.mean((np.float64(a) - b)[:3] ** 2) for w, a, b in weighted)
    parts = zip((0.25, 0.5, 1.0), examples.targets, strict=True)
    square = sum(w * np.mean(np.float64(target[:3]) ** 2) for w, target in parts)
    sums = jax.device_get(
        datasets.score(task, [jnp.asarray(x) for x in outputs], examples, train=False)
    )
    assert (sums["loss"] / 3, sums["squares"] / 3) == pytest.approx((error, square), rel=1e-4)
    perfect = task.summarize([datasets.score(task, examples.targets, examples, train=False)])
    assert perfect == {"loss": 0.0, "accuracy": 1.0, "majority": 0.0}


def test_networks_of_other_depths_are_refused() -> None:
    with pytest.raises(UserError, match="3 stages, and this one has 2"):
        StageHeads((1, 2, 3), 8).init(jax.random.key(0), [jnp.zeros((1, 8, 8, 4))] * 2, False)
    with pytest.raises(UserError, match="networks of this space do not give"):
        StageHeads((1, 2, 3), 8).init(jax.random.key(0), jnp.zeros((3, 8, 8, 4)), False)
    with pytest.raises(UserError, match="config.task.targets='sines': use one of darts, nasbench"):
        registry.task("regression", targets="sines")
