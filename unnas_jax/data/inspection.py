"""A look at some images of a dataset before a run: whether the task can learn from them."""

import logging
from typing import ClassVar, Protocol

import numpy as np

from unnas_jax.core.errors import UserError
from unnas_jax.data import crops, decoding, verify
from unnas_jax.data.records import Dataset

_LOG = logging.getLogger("unnas_jax")

_SAMPLE = 16
# Beyond, images or label maps are of another kind than the task's.
_MAX_COLOURLESS, _MAX_IGNORED = 0.9, 0.5


class _Task(Protocol):
    """The facts of a task (`unnas_jax.tasks.base.Task`) that are needed here."""

    colours: ClassVar[bool]
    label_maps: ClassVar[bool]


def check_images(dataset: Dataset, crop: int, task: _Task) -> None:
    """Looks at images spread over the train split.

    Single small images are enlarged and single gray ones teach no colour; a dataset of nothing but
    such images is a mistake.

    Args:
      dataset: the dataset.
      crop: side of the crops that a config asks for.
      task: what is learned.

    Raises:
      UserError: the short side of each of the images looked at is below `crop` pixels; nine of ten
        images have no colour, where the task is about colours; most pixels of the label maps
        belong to no class, or all to the same, where it is about these.
    """
    records = dataset.splits["train"]
    numbers = np.unique(np.linspace(0, len(records) - 1, _SAMPLE).astype(int))
    largest = colourless = looked_at = 0
    counts = np.zeros(256, np.int64)
    for number in numbers:
        record = records[int(number)]
        try:
            image = decoding.decode(record["image"], apply_exif=dataset.apply_exif)
            if task.label_maps and isinstance(record["label"], crops.LabelMap):
                counts += np.bincount(record["label"].decode().ravel(), minlength=256)
        except ValueError:
            continue  # Named when the pipeline meets it.
        looked_at += 1
        largest = max(largest, min(image.shape[:2]))
        colourless += verify.is_colourless(image)
    if largest < crop:
        raise UserError(
            f"config.input.crop={crop}: the images of the dataset {dataset.name!r} are too small "
            f"(short side at most {largest} of {len(numbers)} looked at); "
            f"use input.crop={largest} or less"
        )
    if task.colours:
        if dataset.colourless is None:
            _check_colours(dataset, colourless, looked_at)
        else:
            _check_colours(dataset, dataset.colourless, len(records))
    if task.label_maps and counts.any():
        _check_label_maps(dataset, counts, looked_at)


def _check_colours(dataset: Dataset, colourless: int, images: int) -> None:
    if not colourless:
        return
    found = f"{colourless:,} of {images:,} training images of {dataset.name!r} have no colour"
    if colourless > _MAX_COLOURLESS * images:
        raise UserError(
            f"config.task.name='colorization': {found}, and nothing can be learned from them; use "
            "images with colours or another task"
        )
    _LOG.warning("%s: the task learns from them to answer gray.", found)


def describe_label_maps(counts: np.ndarray, num_classes: int) -> tuple[str, bool]:
    """What label maps hold, in words, and whether they are those of another dataset.

    Args:
      counts: pixels by class, (256,), not all 0.
      num_classes: of the dataset.
    """
    ignored = counts[crops.IGNORE] / counts.sum()
    classes = int(np.count_nonzero(counts[: crops.IGNORE]))
    words = (
        f"{100 * ignored:.0f}% of the pixels of its label maps are ignored and {classes} of "
        f"{num_classes} classes occur"
    )
    return words, bool(ignored > _MAX_IGNORED or classes < 2)


def _check_label_maps(dataset: Dataset, counts: np.ndarray, maps: int) -> None:
    key = f"config.dataset.name={dataset.name!r}"
    largest = max(np.flatnonzero(counts[: crops.IGNORE]), default=0)
    if largest >= dataset.num_classes:
        raise UserError(
            f"{key}: its label maps hold {largest}, which is no class of {dataset.num_classes}; "
            "prepare it from label maps of its own ids"
        )
    words, foreign = describe_label_maps(counts, dataset.num_classes)
    if foreign:
        raise UserError(
            f"{key}: {words} ({maps} looked at); they have the ids of another dataset: prepare it "
            "from label maps of its own ids"
        )
    _LOG.info("Of %s %s (%d looked at).", dataset.name, words, maps)
