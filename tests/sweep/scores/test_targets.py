"""The bases of the regression targets, by their definitions."""

import numpy as np
import pytest

from unnas_jax.sweep.scores import targets
from unnas_jax.sweep.scores.targets import Dots, Resized, Waves


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_waves_along_an_axis_are_waves() -> None:
    """Each channel is constant along one axis and a wave along the other: y'' = -(2 pi b)^2 y."""
    beta, found = 0.05, targets.waves(rng(), Waves(1.0, (0.05,)), 64, 8)
    assert found.shape == (8, 8, 64) and np.abs(found).max() <= 1
    along_rows = [k for k in range(64) if np.ptp(found[..., k], axis=1).max() < 1e-12]
    assert len(along_rows) == 32
    for k in range(64):
        line = found[:, 0, k] if k in along_rows else found[0, :, k]
        # sin(a + d) + sin(a - d) = 2 sin(a) cos(d).
        np.testing.assert_allclose(
            line[2:] + line[:-2], 2 * np.cos(2 * np.pi * beta) * line[1:-1], atol=1e-12
        )


def test_waves_along_both_axes_come_with_their_reflections() -> None:
    found = targets.waves(rng(), Waves(1.0, (0.05, 0.2), plane=True), 256, 8)
    channels = {found[..., k].tobytes() for k in range(256)}
    assert {np.ascontiguousarray(found[::-1, :, k]).tobytes() for k in range(256)} == channels
    assert len(channels) == 256
    with pytest.raises(ValueError, match="257 channels of 256 waves"):
        targets.waves(rng(), Waves(1.0, (0.05, 0.2), plane=True), 257, 8)


def test_dots_are_so_many_signs() -> None:
    found = targets.dots(rng(), Dots(1.0, 0.4375), 50, 8)
    assert set(np.unique(found)) == {-1.0, 0.0, 1.0}
    assert np.all(np.count_nonzero(found, axis=(0, 1)) == 28)
    blurred = targets.dots(rng(), Dots(1.0, 0.4375, blurred=True), 50, 8)
    np.testing.assert_allclose(np.abs(blurred).max((0, 1)), 1.0)
    # The blurred image of one dot is the Gaussian around it.
    one = targets.dots(rng(), Dots(1.0, 1 / 64, blurred=True), 50, 8)
    for k in range(50):
        i, j = np.unravel_index(np.argmax(np.abs(one[..., k])), (8, 8))
        if 2 <= i < 6 and 2 <= j < 6:
            assert one[i, j + 1, k] / one[i, j, k] == pytest.approx(np.exp(-0.5), rel=1e-3)


def test_the_resized_images_are_nearest_pixels_from_minus_one_to_one() -> None:
    images = rng().normal(size=(3, 32, 32, 3))
    found = targets.resized(rng(), images, 16, 8)
    small = images[:, ::4, ::4]
    small = 2 * (small - small.min()) / np.ptp(small) - 1
    for k in range(16):
        assert any(np.allclose(found[..., k], small[..., c]) for c in range(3))


def test_a_target_is_the_sum_and_local_bases_differ_by_image() -> None:
    images = rng().normal(size=(2, 8, 8, 3)).astype(np.float32)
    shared = targets.target(rng(), [Dots(2.0, 0.5, local=False)], images, 4, 8)
    assert np.array_equal(shared[0], shared[1]) and set(np.unique(shared)) == {-2.0, 0.0, 2.0}
    local = targets.target(rng(), [Dots(2.0, 0.5)], images, 4, 8)
    assert not np.array_equal(local[0], local[1])
    both = targets.target(rng(), [Dots(2.0, 0.5), Resized(0.5)], images, 4, 8)
    assert np.abs(both - local).max() == pytest.approx(0.5) and both.dtype == np.float32
