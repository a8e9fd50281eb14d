"""Tests of colorization: CIE Lab against scikit-image, colour classes against all distances."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import spatial
from skimage import color

from tests.tasks import datasets
from unnas_jax.tasks import colorization, registry

rgb_to_lab, color_classes = (
    jax.jit(f) for f in (colorization.rgb_to_lab, colorization.color_classes)
)


def brute_force(ab: np.ndarray) -> np.ndarray:
    """The nearest centre by 313 distances in float64; the first of equally near ones."""
    centres = colorization.centres().astype(np.float64)
    pieces = [
        ((piece[:, None] - centres) ** 2).sum(axis=-1).argmin(axis=1)
        for piece in np.array_split(ab.astype(np.float64), max(1, len(ab) // 5000))
    ]
    return np.concatenate(pieces)


def test_centres() -> None:
    centres = colorization.centres()
    assert centres.shape == (313, 2)
    assert len(np.unique(centres, axis=0)) == 313
    np.testing.assert_array_equal(centres % 10, 0)
    # In the order of a, then b.
    np.testing.assert_array_equal(np.lexsort((centres[:, 1], centres[:, 0])), np.arange(313))
    # Some rows of the published list, from end to end.
    for a, first, last in ((-90, 50, 90), (-40, -40, 100), (0, -70, 100), (60, -110, 80)):
        row = centres[centres[:, 0] == a, 1]
        np.testing.assert_array_equal(row, np.arange(first, last + 1, 10))
    assert centres[0].tolist() == [-90, 50]
    assert centres[-1].tolist() == [100, 0]


def test_centres_cover_the_colours_that_exist() -> None:
    levels = np.linspace(0, 1, 33)
    rgb = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    ab = color.rgb2lab(rgb)[0, :, 1:]
    centres = colorization.centres().astype(np.float64)
    distance, nearest = spatial.cKDTree(centres).query(ab)
    # Half the diagonal of a grid cell, and a little at the border.
    assert distance.max() < 8
    assert len(np.unique(nearest)) > 250


EXTREMES = {
    "corners": np.array(list(itertools.product((0, 255), repeat=3)), np.uint8),
    "near black": np.array(list(itertools.product(range(12), repeat=3)), np.uint8),
    "gray axis": np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1),
    "random": np.random.default_rng(0).integers(0, 256, (20_000, 3), np.uint8),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_lab(name: str) -> None:
    rgb = EXTREMES[name].astype(np.float32) / 255
    expected = color.rgb2lab(rgb.astype(np.float64)[None])[0]
    np.testing.assert_allclose(rgb_to_lab(jnp.asarray(rgb)), expected, atol=1e-3)


def test_classes_are_the_nearest_centres() -> None:
    rng = np.random.default_rng(0)
    anywhere = rng.uniform(-125, 125, (60_000, 2)).astype(np.float32)
    colours = color.rgb2lab(rng.uniform(size=(1, 40_000, 3)))[0, :, 1:].astype(np.float32)
    for ab in (anywhere, colours):
        classes = np.asarray(color_classes(jnp.asarray(ab)))
        assert classes.dtype == np.int32
        assert np.mean(classes == brute_force(ab)) >= 0.9999


def test_every_centre_is_its_own_class() -> None:
    centres = colorization.centres()
    for offset in ([0, 0], [4.9, 0], [-4.9, 0], [0, 4.9], [0, -4.9]):
        classes = color_classes(jnp.asarray(centres + np.float32(offset)))
        np.testing.assert_array_equal(classes, np.arange(313))


def test_ties_go_to_the_lowest_class() -> None:
    # Midpoints of the grid: up to four centres are equally near, all of it exact in float32.
    grid = np.arange(-125, 130, 5, dtype=np.float32)
    ab = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    np.testing.assert_array_equal(color_classes(jnp.asarray(ab)), brute_force(ab))


def test_examples_are_lightness_and_classes() -> None:
    task = registry.create(datasets.config("colorization"), datasets.dataset())
    images = datasets.images(2, 16)
    mask = np.array([0.0, 1.0], np.float32)
    examples = datasets.examples(task, 0, {"image": images, "mask": mask}, train=False)
    lab = color.rgb2lab(images / 255.0)
    lightness = (lab[..., :1] / 100 - np.mean(datasets.MEAN)) / np.mean(datasets.STD)
    np.testing.assert_allclose(examples.inputs, lightness, atol=1e-3)
    nearest = brute_force(lab[..., 1:].reshape(-1, 2)).reshape(2, 16, 16)
    assert np.mean(np.asarray(examples.targets) == nearest) > 0.998
    np.testing.assert_array_equal(examples.weights, mask)
    assert (task.num_classes, task.input_channels, task.dense) == (313, 1, True)


def test_padding_counts_for_nothing() -> None:
    """However it is painted, a padded pixel is no target; all others keep their class."""
    config = datasets.config("colorization")
    config["input"]["pad"] = 4
    task = registry.create(config, datasets.dataset())
    orange = np.array([255, 128, 0], np.uint8)
    batch = {"image": np.broadcast_to(orange, (64, 16, 16, 3))}
    examples = datasets.examples(task, 0, batch, train=True)
    lightness = np.asarray(examples.inputs)[..., 0]
    expected = color.rgb2lab(orange[None, None] / 255)[0, 0, 0] / 100
    expected = (expected - np.mean(datasets.MEAN)) / np.mean(datasets.STD)
    inside = np.abs(lightness - expected) < 1e-3
    assert 0.5 < inside.mean() < 0.9
    targets = np.asarray(examples.targets)
    assert len(np.unique(targets[inside])) == 1 and (targets[inside] >= 0).all()
    assert (targets[~inside] < 0).all()
    logits = jax.random.normal(jax.random.key(1), (64, 4, 4, 313))
    counted = datasets.score(task, logits, examples, train=True)
    assert float(counted["count"]) == inside.sum()
    (_, painted), *_ = task.panels(examples, datasets.dataset())
    assert painted.title == "1 colour classes"
    # In evaluation nothing is padded.
    examples = datasets.examples(task, 0, batch, train=False)
    assert (np.asarray(examples.targets) >= 0).all()


def test_lighting_beyond_the_cube_stays_finite() -> None:
    config = datasets.config("colorization")
    config["input"]["lighting"] = 3.0
    task = registry.create(config, datasets.dataset())
    images = np.repeat(np.array([0, 255], np.uint8), 8)[:, None, None, None]
    images = np.broadcast_to(images, (16, 4, 4, 3))
    examples = datasets.examples(task, 0, {"image": images}, train=True)
    lightness = np.asarray(examples.inputs) * np.mean(datasets.STD) + np.mean(datasets.MEAN)
    assert np.all((lightness >= -1e-5) & (lightness <= 1 + 1e-5))
    assert np.all((np.asarray(examples.targets) >= 0) & (np.asarray(examples.targets) < 313))
