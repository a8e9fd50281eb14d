"""Tests that the jigsaw's permutations are permutations, distinct and far apart."""

import numpy as np
import pytest

from unnas_jax.tasks.permutations import limit, permutations


@pytest.mark.parametrize(
    ("grid", "count", "minimum"),
    [(2, 24, 2), (3, 504, 7), (3, 1000, 6), (3, 1512, 6), (3, 2000, 4), (3, 3024, 4)],
)
def test_distinct_valid_and_far_apart(grid: int, count: int, minimum: int) -> None:
    perms = permutations(grid, count)
    assert perms.shape == (count, grid**2)
    np.testing.assert_array_equal(perms[0], np.arange(grid**2))
    np.testing.assert_array_equal(
        np.sort(perms, axis=1), np.broadcast_to(np.arange(grid**2), perms.shape)
    )
    # Of one-hot rows the inner product counts the places in which two permutations agree.
    one_hot = np.eye(grid**2)[perms].reshape(count, -1)
    distances = grid**2 - one_hot @ one_hot.T
    pairs = distances[np.triu_indices(count, 1)]
    assert pairs.min() == minimum
    assert len(np.unique(perms, axis=0)) == count
    if grid == 3:
        # Random permutations are 8 apart in the mean.
        assert pairs.mean() > 8.0


def test_fewer_are_the_first_of_more() -> None:
    np.testing.assert_array_equal(permutations(3, 70), permutations(3, 2000)[:70])
    assert permutations(2, 5).shape == (5, 4)


@pytest.mark.parametrize("grid", [2, 3])
def test_refuses_more_than_there_are(grid: int) -> None:
    assert len(permutations(grid, limit(grid))) == limit(grid)
    for count in (0, limit(grid) + 1):
        with pytest.raises(ValueError, match=f"{count} permutations .* at most {limit(grid)}"):
            permutations(grid, count)
