"""Masked images: where patches lie, what counts, and the head's pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tasks import datasets
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.layers.heads import PatchHead
from unnas_jax.tasks import registry


def task(**options):
    return registry.task("masked", crop=16, mask_patch=4, **options)


def test_as_many_patches_are_hidden_as_asked_and_drawn_by_the_key() -> None:
    for ratio, hidden in ((0.75, 12), (0.3, 5)):
        masks = np.asarray(task(mask_ratio=ratio).masks(jax.random.key(0), 50))
        grid = masks.reshape(50, 4, 4, 4, 4)
        assert np.all(grid == grid[:, :, :1, :, :1])  # Whole patches.
        assert np.all(grid[:, :, 0, :, 0].sum((1, 2)) == hidden)
        assert len({mask.tobytes() for mask in masks}) > 45
    again, other = (np.asarray(task().masks(jax.random.key(k), 50)) for k in (0, 1))
    np.testing.assert_array_equal(again, np.asarray(task().masks(jax.random.key(0), 50)))
    assert (again != other).any()


def test_hidden_pixels_are_the_mean_colour_and_the_others_stay() -> None:
    own = task()
    batch = {"image": datasets.images(3, 16)}
    examples = datasets.examples(own, 0, batch, train=False)
    pixels, hidden = (np.asarray(examples.targets[key]) for key in ("pixels", "hidden"))
    expected = (batch["image"] / 255.0 - datasets.MEAN) / datasets.STD
    np.testing.assert_allclose(pixels, expected, atol=1e-5)
    np.testing.assert_array_equal(examples.inputs, np.where(hidden[..., None] > 0, 0.0, pixels))
    seen, whole = own.panels(jax.device_get(examples), None)[1]
    assert seen.title == "75% hidden" and np.array_equal(whole.image, batch["image"][1])
    assert (seen.image != whole.image).any()


def test_the_score_is_the_squared_error_of_hidden_pixels() -> None:
    own = task()
    batch = {"image": datasets.images(3, 16), "mask": np.float32([1, 1, 0])}
    examples = jax.device_get(datasets.examples(own, 0, batch, train=False))
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(3, 16, 16, 3)).astype(np.float32)
    pixels, hidden = (np.float64(examples.targets[key]) for key in ("pixels", "hidden"))
    chosen = hidden[:2] > 0
    error = np.mean((outputs[:2] - pixels[:2])[chosen] ** 2)
    square = np.mean(pixels[:2][chosen] ** 2)
    sums = jax.device_get(datasets.score(own, jnp.asarray(outputs), examples, train=False))
    assert sums["count"] == 2 * 12 * 16 * 3
    assert sums["loss"] / sums["count"] == pytest.approx(error, rel=1e-5)
    found = own.summarize([sums])
    assert found == pytest.approx(
        {"loss": error, "accuracy": max(0, 1 - error / square), "majority": 0.0}, rel=1e-4
    )
    # The answer that knows everything, wrong only where nothing was hidden.
    known = jnp.asarray(np.where(hidden[..., None] > 0, pixels, 9.0), jnp.float32)
    assert own.summarize([datasets.score(own, known, examples, train=False)])["accuracy"] == 1.0


def test_two_devices_sum_up_to_what_one_does() -> None:
    own, rng = task(), np.random.default_rng(0)
    batch = {"image": datasets.images(4, 16)}
    examples = jax.device_get(datasets.examples(own, 0, batch, train=False))
    outputs = 0.3 * rng.normal(size=(4, 16, 16, 3)).astype(np.float32)
    outputs += np.arange(4, dtype=np.float32)[:, None, None, None] / 4 * examples.targets["pixels"]
    found = []
    for devices in (1, 2):
        mesh = sharding.data_mesh(jax.devices()[:devices])
        score = sharding.by_device(
            lambda _, rows: sharding.total(own.score(rows[0], rows[1], train=True)), mesh
        )
        sums = jax.device_get(jax.jit(score)(0.0, (outputs, examples)))
        found.append({name: float(value) for name, value in sums.items()})
    assert found[1] == pytest.approx(found[0], rel=1e-5) and found[0]["correct"] > 0


def test_a_pixel_of_the_features_answers_for_its_square() -> None:
    head = PatchHead(side=7, channels=2)
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 5))
    variables = head.init(jax.random.key(1), x, False)
    whole = np.asarray(head.apply(variables, x, False))
    assert whole.shape == (2, 7, 7, 2)
    changed = np.asarray(head.apply(variables, x.at[:, 1, 2].add(1.0), False)) != whole
    assert set(zip(*np.nonzero(changed.any((0, 3))), strict=True)) == {
        (row, 6) for row in (3, 4, 5)
    }


def test_shares_that_hide_nothing_or_all_are_refused() -> None:
    for ratio in (0.0, 0.02, 1.0):
        with pytest.raises(UserError, match="mask_ratio"):
            task(mask_ratio=ratio)
    with pytest.raises(UserError, match="mask_patch=9"):
        registry.task("masked", crop=16, mask_patch=9)
