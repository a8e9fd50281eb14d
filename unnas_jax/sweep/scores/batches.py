"""The few images of a dataset for which architectures are scored."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from unnas_jax.config.sections import DatasetSection
from unnas_jax.core.errors import UserError
from unnas_jax.data import decoding
from unnas_jax.data.records import Dataset, describe
from unnas_jax.data.registry import DATASETS
from unnas_jax.sweep.scores.registry import Batch

_CLASSES = 10  # Classes of classifiers where images have no labels.


def section(images: str, data_dir: str) -> DatasetSection:
    """The section `dataset` of a config for images that are named on a command line.

    Args:
      images: a folder, or the name of a dataset such as cifar10.
      data_dir: of a prepared dataset; '': the default.
    """
    name = images in DATASETS or images.startswith("tfds:")
    return DatasetSection(
        name=images if name else "folder", path="" if name else images, data_dir=data_dir
    )


def _square(image: np.ndarray, side: int) -> np.ndarray:
    """The middle square of an image at a side, uint8 (side, side, 3)."""
    height, width = image.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = image[top : top + short, left : left + short]
    how = cv2.INTER_AREA if short > side else cv2.INTER_LINEAR
    return square if short == side else cv2.resize(square, (side, side), interpolation=how)


def of_dataset(dataset: Dataset, count: int, side: int, seed: int) -> Batch:
    """Training images, drawn without replacement, their middle squares at a side, normalised.

    Args:
      dataset: where they are from.
      count: how many.
      side: in pixels.
      seed: of the draw.

    Raises:
      UserError: there are not so many, or one cannot be decoded.
    """
    records = dataset.splits["train"]
    if len(records) < count:
        raise UserError(
            f"dataset {dataset.name}: has {len(records):,} training images, a batch takes {count}; "
            "give more images or a smaller batch"
        )
    images, labels = [], []
    for number in np.random.default_rng(seed).permutation(len(records))[:count].tolist():
        record: Mapping[str, Any] = records[number]
        try:
            image = decoding.decode(record["image"], apply_exif=dataset.apply_exif)
        except decoding.Undecodable as error:
            raise UserError(f"dataset: {describe(records, number)} {error}") from error
        images.append(_square(image, side))
        labels.append(record["label"])
    normal = (np.stack(images) / 255 - np.array(dataset.mean)) / np.array(dataset.std)
    known = dataset.num_classes > 0 and not dataset.label_maps
    return Batch(
        normal.astype(np.float32),
        np.array(labels, np.int32) if known else None,
        dataset.num_classes if known else _CLASSES,
    )
