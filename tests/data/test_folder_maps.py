"""The dataset `folder_maps`: images and label maps in a folder, and what is wrong with them."""

import logging

import cv2
import numpy as np
import pytest
from PIL import Image

from unnas_jax.core.errors import UserError
from unnas_jax.data import crops, open_dataset


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(root, split, names, *, size=(12, 16), numbers=(0, 1, 2, 11)):
    rng = np.random.default_rng(len(split))
    maps = {}
    for name in names:
        for kind, end in (("images", "jpg"), ("labels", "png")):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
            path = root / split / kind / f"{name}.{end}"
            shape = (*size, 3) if kind == "images" else size
            pixels = rng.integers(0, 256, shape, np.uint8)
            if kind == "labels":
                pixels = np.asarray(numbers, np.uint8)[pixels % len(numbers)]
                maps[name] = pixels
            cv2.imwrite(str(path), pixels)
    return maps


def section(root, **fields):
    return {"name": "folder_maps", "path": str(root), **fields}


def test_splits_classes_and_ignored_numbers(tmp_path):
    root = tmp_path / "data"
    maps = write(root, "train", ["a", "b"])
    write(root, "val", ["c"])
    write(root, "test", ["d"], size=(9, 30))
    dataset = open_dataset(section(root, ignore_label=11))
    assert {split: len(records) for split, records in dataset.splits.items()} == {
        "train": 2, "validation": 1, "test": 1,
    }  # fmt: skip
    assert dataset.label_maps and dataset.class_names == ("0", "1", "2")
    record = dataset.splits["train"][1]
    expected = np.where(maps["b"] == 11, crops.IGNORE, maps["b"])
    np.testing.assert_array_equal(record["label"].decode(), expected)
    # Without, 11 is a class, and the numbers below it are, too.
    assert open_dataset(section(root)).num_classes == 12
    (root / "classes.txt").write_text("sky\nroad\n\ntree\n")
    assert open_dataset(section(root, ignore_label=11)).class_names == ("sky", "road", "tree")
    with pytest.raises(UserError, match="names 3 classes, but label maps hold the number 11"):
        open_dataset(section(root))


def test_one_split_and_palettes(tmp_path):
    root = tmp_path / "data"
    maps = write(root, "", ["a"], numbers=(0, 3, 255))
    palette = Image.frombytes("P", (16, 12), maps["a"].tobytes())
    palette.putpalette([k for number in range(256) for k in (number, 255 - number, 7)])
    palette.save(root / "labels" / "a.png")
    dataset = open_dataset(section(root))
    assert list(dataset.splits) == ["train"] and dataset.num_classes == 4
    np.testing.assert_array_equal(dataset.splits["train"][0]["label"].decode(), maps["a"])


def test_what_does_not_fit_is_left_out_and_named(tmp_path, caplog):
    root = tmp_path / "data"
    write(root, "train", ["good", "lonely", "large", "coloured", "broken", "torn"])
    labels = root / "train" / "labels"
    (labels / "lonely.png").unlink()
    cv2.imwrite(str(labels / "large.png"), np.zeros((13, 16), np.uint8))
    cv2.imwrite(str(labels / "coloured.png"), np.eye(12, 16, dtype=np.uint8)[..., None] * [1, 2, 3])
    (labels / "broken.png").write_bytes((labels / "good.png").read_bytes()[:60])
    image = root / "train" / "images" / "torn.jpg"
    image.write_bytes(image.read_bytes()[:300])
    with caplog.at_level(logging.WARNING, "unnas_jax"):
        dataset = open_dataset(section(root))
    assert [str(path) for path in dataset.splits["train"].names()] == ["train/images/good.jpg"]
    words = caplog.text
    assert "Skipped 5 of 6 images" in words
    for expected in (
        "lonely.jpg' (has no label map train/labels/lonely.png)",
        "large.jpg' (and its label map differ in size (16 x 12 and 16 x 13))",
        "coloured.jpg' (has a label map that is not a gray image of 8 bits)",
        "broken.jpg' (has a label map that cannot be decoded)",
        "torn.jpg' (cannot be decoded",
    ):
        assert expected in words, expected


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "has neither images/ and labels/ nor train/images/"),
        (lambda root: write(root, "val", ["a"]), "has neither images/ and labels/ nor train"),
        (lambda root: (root / "images").mkdir(), "has no labels/ beside it"),
        (lambda root: write(root, "", ["a"], numbers=(255,)), "every pixel .* is ignored"),
        (
            lambda root: (write(root, "", ["a"]), (root / "labels" / "a.png").unlink()),
            "the split 'train' has no image with a label map .*'images/a.jpg'",
        ),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, make, words):
    root = tmp_path / "data"
    root.mkdir()
    make(root)
    with pytest.raises(UserError, match=words):
        open_dataset(section(root))
