"""Tests of the device transforms: flip, gray, lighting, padded crop, normalisation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import color

from tests.tasks import datasets
from unnas_jax.config.sections import Input
from unnas_jax.tasks import transforms
from unnas_jax.tasks.transforms import Augmentation


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(400, 6, 6, 3)).astype(np.float32)


def test_flip_mirrors_half_of_the_images_and_changes_nothing_else(images: np.ndarray) -> None:
    out = np.asarray(jax.jit(transforms.random_flip)(jax.random.key(0), images))
    flipped = np.all(out == images[:, :, ::-1], axis=(1, 2, 3))
    kept = np.all(out == images, axis=(1, 2, 3))
    assert np.all(flipped ^ kept)
    assert 0.4 < flipped.mean() < 0.6


def test_gray_is_luma_for_a_share_of_the_images(images: np.ndarray) -> None:
    out = np.asarray(jax.jit(transforms.random_gray)(jax.random.key(0), images, 0.3))
    kept = np.all(out == images, axis=(1, 2, 3))
    assert 0.2 < 1 - kept.mean() < 0.4
    luma = color.rgb2gray(images.astype(np.float64))  # The release's, too.
    np.testing.assert_allclose(out[~kept], np.repeat(luma[~kept, :, :, None], 3, -1), atol=1e-6)


def test_lighting_moves_along_the_principal_colours() -> None:
    count, scale = 20_000, 0.1
    values = np.array([0.2175, 0.0188, 0.0045])
    red, green, blue = (
        [-0.5675, 0.7192, 0.4009],
        [-0.5808, -0.0045, -0.8140],
        [-0.5836, -0.6948, 0.4203],
    )
    components = np.array([red, green, blue])
    zeros = jnp.zeros((count, 2, 1, 3), jnp.float32)
    offsets = np.asarray(jax.jit(transforms.lighting)(jax.random.key(0), zeros, scale), np.float64)
    np.testing.assert_array_equal(offsets[:, 0], offsets[:, 1])
    draws = np.linalg.solve(components * values, offsets[:, 0, 0].T).T
    # 20,000 draws: deviations of 0.0007 (mean), 0.0005 (deviation), 0.7% (correlation).
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=0.003)
    np.testing.assert_allclose(draws.std(axis=0), scale, rtol=0.025)
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(3), atol=0.03)


def test_lighting_adds_to_the_image(images: np.ndarray) -> None:
    key = jax.random.key(0)
    offsets = jax.jit(transforms.lighting)(key, jnp.zeros_like(images), 0.1)
    np.testing.assert_allclose(
        jax.jit(transforms.lighting)(key, images, 0.1), images + np.asarray(offsets), atol=1e-6
    )


def test_swapped_statistics_swap_the_offsets_of_red_and_blue() -> None:
    """As the mean and the deviation: the release lists all of them in the order BGR."""
    config = datasets.config("classification")
    config["input"]["lighting"] = 0.1
    black = np.zeros((8, 2, 2, 3), np.uint8)
    offsets = []
    for swapped in (False, True):
        config["input"]["swapped_statistics"] = swapped
        augmentation = Augmentation.create(Input.of(config["input"]), datasets.dataset())
        lit = jax.jit(functools.partial(augmentation, train=True))(jax.random.key(0), black)
        offsets.append(np.asarray(lit))
    np.testing.assert_allclose(offsets[1], offsets[0][..., ::-1], rtol=1e-6)
    assert np.abs(offsets[0][..., 0] - offsets[0][..., 2]).max() > 1e-3


def test_padded_crop_shows_a_window_of_the_padded_image() -> None:
    count, size, pad = 300, 5, 2
    value = np.array([0.1, 0.2, 0.3], np.float32)
    images = np.random.default_rng(0).uniform(0.4, 1.0, (count, size, size, 3)).astype(np.float32)
    out = np.asarray(
        jax.jit(transforms.padded_crop, static_argnums=2)(jax.random.key(0), images, pad, value)
    )
    seen = set()
    for image, crop in zip(images, out, strict=True):
        wide = np.broadcast_to(value, (size + 2 * pad, size + 2 * pad, 3)).copy()
        wide[pad:-pad, pad:-pad] = image
        matches = [
            (row, column)
            for row in range(2 * pad + 1)
            for column in range(2 * pad + 1)
            if np.array_equal(wide[row : row + size, column : column + size], crop)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == (2 * pad + 1) ** 2


def test_padding_is_zero_after_normalisation() -> None:
    augmentation = Augmentation(datasets.MEAN, datasets.STD, pad=4)
    white = np.full((64, 8, 8, 3), 255, np.uint8)
    x = jax.jit(functools.partial(augmentation, train=True))(jax.random.key(0), white)
    normalised = np.asarray(augmentation.normalise(x))
    colour = (1 - np.array(datasets.MEAN)) / np.array(datasets.STD)
    padding = np.all(normalised == 0, axis=-1)
    assert padding.any(axis=(1, 2)).mean() > 0.9
    np.testing.assert_allclose(
        normalised[~padding], np.broadcast_to(colour, (np.sum(~padding), 3)), rtol=1e-5
    )
    # The crop moves by at most 4 of 8 pixels: at least a quarter of the image stays.
    assert np.mean(~padding, axis=(1, 2)).min() >= 0.25


def test_normalisation() -> None:
    augmentation = Augmentation(datasets.MEAN, datasets.STD)
    x = np.random.default_rng(0).uniform(size=(2, 3, 3, 3)).astype(np.float32)
    expected = (x.astype(np.float64) - datasets.MEAN) / datasets.STD
    np.testing.assert_allclose(augmentation.normalise(x), expected, rtol=1e-5, atol=1e-6)


def test_evaluation_changes_nothing_and_training_depends_on_the_key() -> None:
    augmentation = Augmentation(datasets.MEAN, datasets.STD, lighting=0.1, gray=0.5, pad=2)
    images = datasets.images(16, 8)
    out = augmentation(jax.random.key(0), images, train=False)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, images.astype(np.float32) / np.float32(255))
    augment = jax.jit(functools.partial(augmentation, train=True))
    train = [np.asarray(augment(jax.random.key(k), images)) for k in (0, 0, 1)]
    np.testing.assert_array_equal(train[0], train[1])
    assert not np.any(np.all(train[0] == train[2], axis=(1, 2, 3)))


def test_cutout_replaces_one_square_whose_centre_is_any_pixel() -> None:
    """Counted by hand: of 5 x 5 around (r, c), what lies within the image, and nothing else."""
    images = np.random.default_rng(0).uniform(0.1, 1, (400, 8, 10, 3)).astype(np.float32)
    fill = np.array([0.0, 2.0, 3.0], np.float32)
    cut = np.asarray(
        jax.jit(transforms.cut_out, static_argnums=2)(
            jax.random.key(0), jnp.asarray(images), 5, fill
        )
    )
    gone = (cut == fill).all(-1)
    np.testing.assert_array_equal(cut[~gone], images[~gone])
    corners = set()
    for mask in gone:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns) and len(rows) <= 5 and len(columns) <= 5
        # At the first border the square is cut to 3 or 4 pixels, at the last to 3 or 4.
        assert len(rows) >= 3 and len(columns) >= 3
        corners.add((rows[0], rows[-1], columns[0], columns[-1]))
    # Centres 0 to 7 and 0 to 9: as many different squares, of which 400 draws meet most.
    assert 70 < len(corners) <= 80
    some = np.asarray(
        jax.jit(transforms.cut_out, static_argnums=2)(
            jax.random.key(0), jnp.asarray(images), 5, fill, 0.3
        )
    )
    lost = (some == fill).all(-1).any((1, 2))
    # The same squares, of 400 images with a probability of 0.3: a deviation of 0.023.
    np.testing.assert_array_equal(some[lost], cut[lost])
    np.testing.assert_array_equal(some[~lost], images[~lost])
    assert 0.2 < lost.mean() < 0.4
