"""The embedded dataset `digits`: the 1,797 handwritten digits that come with scikit-learn.

They are the test part of UCI's optical recognition of handwritten digits (Alpaydin and Kaynak,
1998): gray bitmaps of 8x8 pixels and 17 levels, by 13 people. The file goes on from person to
person: the first 1,200 are for training and the last 597, most of them by other people, are held
out.
"""

import cv2
import numpy as np
from sklearn import datasets

from unnas_jax.config.sections import DatasetSection
from unnas_jax.data.arrays import ArrayRecords
from unnas_jax.data.records import Dataset

CLASSES = tuple(map(str, range(10)))

TRAIN = 1200
"""Images of the training split; the others are held out."""

SIDE = 32
"""Pixels a side, to which the bitmaps are enlarged: a task may cut them in tiles."""

MEAN, STD = 0.306, 0.323
"""The mean and deviation of the enlarged training images, in [0, 1]; the channels are equal."""

_LEVELS = 16


def enlarged(bitmap: np.ndarray) -> np.ndarray:
    """Levels 0 to 16, (8, 8), as gray uint8 RGB (SIDE, SIDE, 3), linearly interpolated."""
    gray = np.round(255.0 / _LEVELS * bitmap).astype(np.uint8)
    large = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return np.repeat(large[..., None], 3, axis=-1)


def open_dataset(section: DatasetSection) -> Dataset:
    """The digits, in memory.

    Args:
      section: a config's `dataset`: only its field `name` counts.
    """
    bitmaps, labels = datasets.load_digits(return_X_y=True)
    images = np.stack([enlarged(bitmap) for bitmap in bitmaps.reshape(-1, 8, 8)])
    labels = labels.astype(np.int64)
    splits = {"train": slice(TRAIN), "test": slice(TRAIN, None)}
    return Dataset(
        section.name,
        {split: ArrayRecords(images[part], labels[part]) for split, part in splits.items()},
        len(CLASSES),
        CLASSES,
        mean=(MEAN,) * 3,
        std=(STD,) * 3,
        colourless=TRAIN,
    )
