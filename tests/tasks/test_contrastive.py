"""Contrastive learning: the loss by its definition, on one device as on two, and the views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tasks import datasets
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.tasks import registry
from unnas_jax.tasks.contrastive import nt_xent
from unnas_jax.tasks.transforms import random_crops, random_jitter


def points(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 5)).astype(np.float32)


def numbers(sums) -> dict[str, float]:
    return {name: float(value) for name, value in sums.items()}


def score(x: np.ndarray, weights: np.ndarray, temperature: float) -> dict[str, float]:
    return numbers(jax.jit(nt_xent)(x, weights, temperature))


def by_definition(x: np.ndarray, temperature: float) -> tuple[float, int]:
    """SimCLR's equation 1, summed over all views in float64, and how many find their partner."""
    x = x.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    loss, hits = 0.0, 0
    for i in range(len(x)):
        j = i + 1 if i % 2 == 0 else i - 1
        others = {k: x[i] @ x[k] / temperature for k in range(len(x)) if k != i}
        loss += np.log(sum(np.exp(value) for value in others.values())) - others[j]
        hits += max(others, key=others.__getitem__) == j
    return loss, hits


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_loss_is_that_of_the_definition(temperature: float) -> None:
    x = points(12)
    sums = score(x, np.ones(12, np.float32), temperature)
    loss, hits = by_definition(x, temperature)
    assert sums["loss"] == pytest.approx(loss, rel=1e-5)
    assert (sums["correct"], sums["count"]) == (hits, 12)
    assert sums["guess"] == pytest.approx(12 / 11)
    # Padding is compared with nothing.
    padded = np.concatenate([x, points(4)])
    weights = np.float32([1] * 12 + [0] * 4)
    again = score(padded, weights, temperature)
    assert again == pytest.approx(sums, rel=1e-5)


def test_two_devices_are_one() -> None:
    """Loss, hits and gradient of the global batch, of which each device has a half."""
    x, weights = points(12), np.float32([1] * 10 + [0] * 2)
    own = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)

    def results(devices: int):
        mesh = sharding.data_mesh(jax.devices()[:devices])

        def of_rows(weight, rows):
            def loss(weight):
                sums = nt_xent(rows["x"] @ weight, rows["weights"], 0.5)
                return sums["loss"] / sharding.total(sums["count"]), sums

            gradient, sums = jax.grad(loss, has_aux=True)(weight)
            return sharding.total((gradient, sums))

        rows = sharding.to_devices({"x": x, "weights": weights}, mesh)
        weight = sharding.replicate(own, mesh)
        return jax.device_get(jax.jit(sharding.by_device(of_rows, mesh))(weight, rows))

    (gradient, sums), (other, others) = results(1), results(2)
    np.testing.assert_allclose(gradient, other, rtol=1e-5, atol=1e-7)
    assert numbers(others) == pytest.approx(numbers(sums), rel=1e-5)
    assert sums["count"] == 10


def test_views_lie_in_their_image_and_differ() -> None:
    """In an image whose values are its coordinates a crop's corners say which region it is."""
    side = 16
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    image = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.float32)
    images = jnp.asarray(image[None].repeat(200, 0))
    crops = np.asarray(jax.jit(random_crops, static_argnums=2)(jax.random.key(0), images, 0.3))
    steps = (crops[:, 8, 8, :2] - crops[:, 4, 4, :2]) / 4  # Pixels of the image a pixel.
    shares = np.stack([np.diff(crops[:, 4:9:4, 6, 0])[:, 0], np.diff(crops[:, 6, 4:9:4, 1])[:, 0]])
    np.testing.assert_allclose(shares.T / 4, steps, atol=1e-4)
    area = steps.prod(axis=1)
    assert area.min() > 0.25 and area.max() <= 1 + 1e-4  # Cut sides make some smaller.
    assert np.all((crops >= 0) & (crops <= side - 1 + 1e-4))
    assert len(np.unique(crops[:, 0, 0, 0])) > 100

    task = registry.task("contrastive", classes=0)
    batch = {"image": datasets.images(4, 16), "mask": np.float32([1, 1, 1, 0])}
    for train in (True, False):
        program = jax.jit(task.examples, static_argnames="train")
        examples = jax.device_get(program(jax.random.key(1), batch, train=train))
        assert examples.inputs.shape == (8, 16, 16, 3)
        np.testing.assert_array_equal(examples.targets, [0, 0, 1, 1, 2, 2, 3, 3])
        np.testing.assert_array_equal(examples.weights, [1] * 6 + [0] * 2)
        assert [len(row) for row in task.panels(examples, None)] == [2] * 4
        assert (examples.inputs[::2] != examples.inputs[1::2]).any(axis=(1, 2, 3)).all()


def test_jitter_keeps_gray_gray_and_some_images_as_they_are() -> None:
    images = np.repeat(datasets.images(100, 4)[..., :1], 3, axis=-1) / np.float32(255)
    found = np.asarray(jax.jit(random_jitter)(jax.random.key(0), images))
    np.testing.assert_allclose(found, found[..., :1].repeat(3, axis=-1), atol=1e-5)
    assert found.min() >= 0 and found.max() <= 1
    same = np.isclose(found, images, atol=1e-6).all(axis=(1, 2, 3)).sum()
    assert 8 <= same <= 34


def test_impossible_settings_are_refused() -> None:
    for option in ({"temperature": 0.0}, {"projection": 0}, {"view_area": 1.5}):
        with pytest.raises(UserError, match=f"config.task.{next(iter(option))}"):
            registry.task("contrastive", **option)
