"""Whether a task can learn from a dataset's images."""

import cv2
import numpy as np
import pytest

from tests import tiny
from unnas_jax.core.errors import UserError
from unnas_jax.data import crops, inspection
from unnas_jax.data.records import Dataset
from unnas_jax.tasks.colorization import Colorization
from unnas_jax.tasks.rotation import Rotation
from unnas_jax.tasks.segmentation import Segmentation


class Images:
    """Images of 20 pixels, some of them gray, with a label map."""

    def __init__(self, gray, ids=None):
        self.gray, self.ids = gray, ids
        self.pixels = tiny.upright(40, 20)

    def __len__(self):
        return 40

    def __getitem__(self, i):
        pixels = self.pixels[i]
        if i < self.gray:
            pixels = np.repeat(pixels.mean(-1, keepdims=True), 3, -1).astype(np.uint8)
        label = 0
        if self.ids is not None:
            label = crops.LabelMap(cv2.imencode(".png", self.ids)[1].tobytes())
        return {"image": cv2.imencode(".png", pixels)[1].tobytes(), "label": label}


def dataset(records, **fields):
    return Dataset("some", {"train": records}, 19, (), **fields)


def test_images_without_colour_are_refused_where_the_task_is_colours(messages):
    for fields in ({}, {"colourless": 40}):
        with pytest.raises(UserError, match="training images of 'some' have no colour"):
            inspection.check_images(dataset(Images(40), **fields), 16, Colorization)
        inspection.check_images(dataset(Images(40), **fields), 16, Rotation)
    assert not [line for line in messages if line.startswith("WARNING")]


def test_some_images_without_colour_are_counted(messages):
    inspection.check_images(dataset(Images(10), colourless=10), 16, Colorization)
    (warning,) = [line for line in messages if line.startswith("WARNING")]
    assert "10 of 40 training images of 'some' have no colour" in warning
    inspection.check_images(dataset(Images(10)), 16, Colorization)
    assert len(messages) == 2 and "of 16 training images" in messages[1]
    inspection.check_images(dataset(Images(0)), 16, Colorization)
    assert len(messages) == 2


def label_map(**shares):
    """20 x 20 pixels: rows of so many of 20 for each id."""
    return np.repeat([int(name[1:]) for name in shares], list(shares.values())).astype(np.uint8)[
        :, None
    ] * np.ones((1, 20), np.uint8)


def test_label_maps_are_described(messages):
    inspection.check_images(dataset(Images(0, label_map(_0=8, _5=10, _255=2))), 16, Segmentation)
    (line,) = messages
    assert "10% of the pixels of its label maps are ignored and 2 of 19 classes occur" in line


@pytest.mark.parametrize(
    "ids, words",
    [
        (
            label_map(_255=16, _2=2, _3=2),
            "80% of the pixels of its label maps are ignored and 2 of 19 classes",
        ),
        (label_map(_7=20), "0% of the pixels of its label maps are ignored and 1 of 19 classes"),
        (label_map(_7=10, _30=10), "its label maps hold 30, which is no class of 19"),
    ],
)
def test_label_maps_of_foreign_ids_are_refused(ids, words):
    with pytest.raises(UserError, match=words):
        inspection.check_images(dataset(Images(0, ids)), 16, Segmentation)
    inspection.check_images(dataset(Images(0, ids)), 16, Rotation)


def test_small_images_are_refused():
    with pytest.raises(UserError, match=r"input.crop=21: .*short side at most 20 of 16 looked at"):
        inspection.check_images(dataset(Images(0)), 21, Rotation)
