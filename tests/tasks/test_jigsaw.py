"""Tests of the jigsaw: where every tile comes from and where it goes."""

import pathlib

import jax
import numpy as np
import pytest

from tests.tasks import datasets
from unnas_jax.core.errors import UserError
from unnas_jax.tasks import registry
from unnas_jax.tasks.permutations import permutations


def positions(size: int) -> np.ndarray:
    """An image whose red is the row, whose green is the column, and whose blue is zero."""
    image = np.zeros((size, size, 3), np.uint8)
    image[..., 0] = np.arange(size)[:, None]
    image[..., 1] = np.arange(size)[None, :]
    return image


def corners(tiles: np.ndarray) -> np.ndarray:
    """The place in the image (N, 2) of tiles of `positions`.

    A tile is normalised, a * image + c with one a and c; a is its slope along the rows, and in
    differences of channels c is gone.
    """
    slope = tiles[:, 1:2, 0, 0] - tiles[:, 0:1, 0, 0]
    differences = tiles[:, 0, 0, :2] - tiles[:, 0, 0, 2:]
    found = differences / slope
    np.testing.assert_allclose(found, found.round(), atol=1e-2)
    return found.round().astype(int)


@pytest.mark.parametrize(
    # 48 pixels: patches of 16 and tiles of 12, or of 24 and 18; 50 pixels leave two unused.
    ("grid", "count", "size", "tile"),
    [(3, 1000, 48, 12), (3, 2000, 50, 12), (2, 24, 48, 18)],
)
def test_tiles_come_from_their_patches_and_go_to_their_places(
    grid: int, count: int, size: int, tile: int
) -> None:
    config = datasets.config("jigsaw", grid=grid, permutations=count)
    task = registry.create(config, datasets.plain())
    batch = {"image": np.stack([positions(size)] * 64)}
    examples = datasets.examples(task, 0, batch, train=False)
    tiles = np.asarray(examples.inputs)
    assert tiles.shape == (64 * grid**2, tile, tile, 3)
    places = corners(tiles)
    patch = size // grid
    patches, offsets = places // patch, places % patch
    assert offsets.max() + tile <= patch
    # Every place that a tile can take in its patch is taken by some tile.
    assert len(np.unique(offsets, axis=0)) == (patch - tile + 1) ** 2
    numbers = (patches[:, 0] * grid + patches[:, 1]).reshape(64, grid**2)
    targets = np.asarray(examples.targets)
    assert targets.min() >= 0
    assert targets.max() < count
    perms = permutations(grid, count)
    for shown, target in zip(numbers, targets, strict=True):
        for number in range(grid**2):
            assert shown[perms[target][number]] == number
    assert len(np.unique(targets)) > 10


def test_tiles_are_normalised_one_by_one() -> None:
    task = registry.create(datasets.config("jigsaw"), datasets.dataset())
    batch = {"image": datasets.images(4, 48), "mask": np.array([1, 1, 1, 0], np.float32)}
    for train in (True, False):
        examples = datasets.examples(task, 0, batch, train=train)
        tiles = np.asarray(examples.inputs, np.float64)
        np.testing.assert_allclose(tiles.mean(axis=(1, 2, 3)), 0, atol=1e-5)
        np.testing.assert_allclose(tiles.std(axis=(1, 2, 3)), 1, rtol=1e-4)
        np.testing.assert_array_equal(examples.weights, [1, 1, 1, 0])


def test_the_recipe_of_imagenet() -> None:
    task = registry.create(datasets.config("jigsaw"), datasets.dataset())
    batch = {"image": jax.ShapeDtypeStruct((2, 255, 255, 3), np.uint8)}
    examples = jax.eval_shape(lambda b: task.examples(jax.random.key(0), b, train=True), batch)
    assert examples.inputs.shape == (18, 64, 64, 3)
    assert (task.num_classes, task.tiles) == (1000, 9)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_flat_tile_is_small_noise(value: int) -> None:
    task = registry.create(datasets.config("jigsaw"), datasets.plain())
    batch = {"image": np.full((2, 48, 48, 3), value, np.uint8)}
    tiles = np.asarray(datasets.examples(task, 0, batch, train=False).inputs)
    assert np.abs(tiles).max() < 0.1


def test_draws_depend_on_the_key() -> None:
    task = registry.create(datasets.config("jigsaw"), datasets.plain())
    batch = {"image": np.stack([positions(48)] * 8)}
    runs = [datasets.examples(task, k, batch, train=False) for k in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0].inputs, runs[1].inputs)
    np.testing.assert_array_equal(runs[0].targets, runs[1].targets)
    assert np.any(np.asarray(runs[0].targets) != np.asarray(runs[2].targets))
    assert np.any(corners(np.asarray(runs[0].inputs)) != corners(np.asarray(runs[2].inputs)))


@pytest.mark.parametrize(
    ("task", "crop", "message"),
    [
        ({"grid": 4}, 48, "config.task.grid=4: use 2 or 3"),
        ({"permutations": 4000}, 48, "config.task.permutations=4000: a grid of 3 has 2 to 3024"),
        ({"grid": 2, "permutations": 1000}, 48, "a grid of 2 has 2 to 24"),
        ({"permutations": 1}, 48, "config.task.permutations=1"),
        ({}, 30, "config.input.crop=30: too small for 3x3 tiles"),
    ],
)
def test_what_does_not_exist_is_refused(task: dict[str, int], crop: int, message: str) -> None:
    config = datasets.config("jigsaw", **task)
    config["input"]["crop"] = crop
    with pytest.raises(UserError, match=message):
        registry.validate(config)


def test_what_exists_is_accepted() -> None:
    registry.validate(datasets.config("jigsaw", grid=2, permutations=24))
    registry.validate(datasets.config("jigsaw", permutations=3024))


def test_padding_that_gives_outer_tiles_away_is_refused() -> None:
    config = datasets.config("jigsaw", grid=2, permutations=24)
    config["input"]["pad"] = 4
    with pytest.raises(UserError, match=r"config.input.pad=4: padding shows .*; use 0"):
        registry.validate(config)


def saved(path, rows) -> str:
    np.save(path, np.asarray(rows))
    return str(path)


def test_a_list_from_a_file(tmp_path: pathlib.Path) -> None:
    rows = [[3, 2, 1, 0], [1, 0, 3, 2], [0, 1, 2, 3]]
    path = saved(tmp_path / "list.npy", rows)
    config = datasets.config("jigsaw", grid=2, permutations=3, permutation_list=path)
    registry.validate(config)
    task = registry.create(config, datasets.plain())
    np.testing.assert_array_equal(task.permutations, rows)
    listed = datasets.examples(
        task, 0, {"image": datasets.images(8, 48), "label": np.zeros(8)}, train=False
    )
    own = registry.create({**config, "task": {**config["task"], "permutation_list": ""}},
                          datasets.plain())  # fmt: skip
    other = datasets.examples(
        own, 0, {"image": datasets.images(8, 48), "label": np.zeros(8)}, train=False
    )
    # The same draws: the tiles differ by their places alone.
    for k, target in enumerate(listed.targets):
        tiles, others = (e.inputs.reshape(8, 4, *e.inputs.shape[1:])[k] for e in (listed, other))
        places, ours = rows[target], permutations(2, 3)[target]
        for patch in range(4):
            np.testing.assert_array_equal(tiles[places[patch]], others[ours[patch]])


@pytest.mark.parametrize(
    "rows, words",
    [
        ([[0, 1, 2, 3]], "has the shape (1, 4)"),
        ([[0, 1, 2, 4], [0, 1, 2, 3]], "must have 0 to 3 once"),
        ([[1, 2, 3, 4], [0, 1, 2, 3]], "must have 0 to 3 once"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_list(rows, words: str, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "list.npy") if rows is None else saved(tmp_path / "list.npy", rows)
    config = datasets.config("jigsaw", grid=2, permutations=2, permutation_list=path)
    with pytest.raises(UserError) as error:
        registry.validate(config)
    assert words in str(error.value)
