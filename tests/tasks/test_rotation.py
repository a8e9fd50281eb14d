"""Tests that rotation turns images counter-clockwise and labels them by how far."""

import numpy as np

from tests.tasks import datasets
from unnas_jax.tasks import registry


def test_four_turns_of_every_image() -> None:
    task = registry.create(datasets.config("rotation"), datasets.dataset())
    images = datasets.images(3, 7)
    mask = np.array([1.0, 1.0, 0.0], np.float32)
    examples = datasets.examples(task, 0, {"image": images, "mask": mask}, train=False)
    assert examples.inputs.shape == (12, 7, 7, 3)
    upright = np.asarray(examples.inputs[::4])
    expected = (images / 255.0 - datasets.MEAN) / datasets.STD
    np.testing.assert_allclose(upright, expected, rtol=1e-4, atol=1e-5)
    for image in range(3):
        for turns in range(4):
            np.testing.assert_array_equal(
                examples.inputs[4 * image + turns], np.rot90(upright[image], turns)
            )
    np.testing.assert_array_equal(examples.targets, [0, 1, 2, 3] * 3)
    np.testing.assert_array_equal(examples.weights, [1.0] * 8 + [0.0] * 4)


def test_the_upper_edge_comes_to_the_left() -> None:
    task = registry.create(datasets.config("rotation"), datasets.plain())
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[0, 0] = 255
    inputs = np.asarray(datasets.examples(task, 0, {"image": image}, train=False).inputs)
    assert np.all(inputs[1, :, 0] == 1)
    assert np.all(inputs[1, :, 1:] == 0)


def test_turns_of_one_image_share_its_augmentation() -> None:
    task = registry.create(datasets.config("rotation"), datasets.plain())
    batch = {"image": datasets.images(16, 6)}
    inputs = np.asarray(datasets.examples(task, 0, batch, train=True).inputs)
    for image in range(16):
        for turns in range(1, 4):
            np.testing.assert_array_equal(
                inputs[4 * image + turns], np.rot90(inputs[4 * image], turns)
            )
    flipped = [np.allclose(inputs[4 * k], batch["image"][k, :, ::-1] / 255.0) for k in range(16)]
    assert 0 < sum(flipped) < 16
