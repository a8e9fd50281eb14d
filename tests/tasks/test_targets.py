"""The bases of the regression targets, by their definitions."""

from typing import Any

import jax
import numpy as np
import pytest
from scipy import ndimage

from unnas_jax.tasks import targets
from unnas_jax.tasks.targets import Dots, Resized, Waves


def draw(function: Any, basis: Any, channels: int) -> np.ndarray:
    key = jax.random.key(0)
    return np.asarray(jax.jit(lambda: function(key, basis, channels, 8))())


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_waves_along_an_axis_are_waves() -> None:
    """Each channel is constant along one axis and a wave along the other: y'' = -(2 pi b)^2 y."""
    beta, found = 0.05, draw(targets.waves, Waves(1.0, (0.05,)), 64)
    assert found.shape == (8, 8, 64) and np.abs(found).max() <= 1
    along_rows = [k for k in range(64) if np.ptp(found[..., k], axis=1).max() == 0]
    assert len(along_rows) == 32
    for k in range(64):
        line = found[:, 0, k] if k in along_rows else found[0, :, k]
        # sin(a + d) + sin(a - d) = 2 sin(a) cos(d).
        np.testing.assert_allclose(
            line[2:] + line[:-2], 2 * np.cos(2 * np.pi * beta) * line[1:-1], atol=1e-5
        )


def test_waves_along_both_axes_come_with_their_reflections() -> None:
    found = draw(targets.waves, Waves(1.0, (0.05, 0.2), plane=True), 256)
    one, other = found.reshape(64, 256), found[::-1].reshape(64, 256)
    near = np.abs(one[:, :, None] - other[:, None]).max(0) < 1e-5
    assert np.all(near.sum(0) == 1) and np.all(near.sum(1) == 1)
    with pytest.raises(ValueError, match="257 channels of 256 waves"):
        draw(targets.waves, Waves(1.0, (0.05, 0.2), plane=True), 257)


def test_dots_are_so_many_signs() -> None:
    found = draw(targets.dots, Dots(1.0, 0.4375), 50)
    assert set(np.unique(found)) == {-1.0, 0.0, 1.0}
    assert np.all(np.count_nonzero(found, axis=(0, 1)) == 28)
    # The blurred image is SciPy's of the dots that the same key draws, over its largest magnitude.
    blurred = draw(targets.dots, Dots(1.0, 0.4375, blurred=True), 50)
    expected = ndimage.gaussian_filter(found.astype(float), (1, 1, 0))
    expected /= np.abs(expected).max((0, 1))
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


def test_the_resized_images_are_nearest_pixels_from_minus_one_to_one() -> None:
    images = normal(3, 32, 32, 3)
    found = np.asarray(targets.resized(jax.random.key(0), images, 16, 8))
    small = images[:, ::4, ::4]
    scaled = 2 * (small - small.min()) / np.ptp(small) - 1
    for k in range(16):
        assert any(np.allclose(found[..., k], scaled[..., c], atol=1e-5) for c in range(3))
    bounded = np.asarray(targets.resized(jax.random.key(0), images, 16, 8, (-5.0, 5.0)))
    assert any(np.allclose(bounded[..., 0], small[..., c] / 5, atol=1e-5) for c in range(3))


def test_a_target_is_the_sum_and_local_bases_belong_to_an_image_s_number() -> None:
    images, key = normal(2, 8, 8, 3), jax.random.key(0)

    def target(bases: Any, records: Any) -> np.ndarray:
        made = jax.jit(lambda records: targets.target(key, bases, images, records, 4, 8))
        return np.asarray(made(np.array(records)))

    shared = target([Dots(2.0, 0.5, local=False)], [0, 1])
    assert np.array_equal(shared[0], shared[1]) and set(np.unique(shared)) == {-2.0, 0.0, 2.0}
    local = target([Dots(2.0, 0.5)], [7, 3])
    assert not np.array_equal(local[0], local[1])
    np.testing.assert_array_equal(target([Dots(2.0, 0.5)], [3, 7]), local[::-1])
    both = target([Dots(2.0, 0.5), Resized(0.5)], [7, 3])
    assert np.abs(both - local).max() == pytest.approx(0.5) and both.dtype == np.float32
