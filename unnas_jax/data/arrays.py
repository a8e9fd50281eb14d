"""Images in memory as a dataset: uint8 arrays, with labels or without."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from unnas_jax.core.errors import UserError
from unnas_jax.data.records import Dataset


@dataclasses.dataclass(frozen=True)
class ArrayRecords:
    """Images of an array, encoded without loss when they are read.

    Every process that decodes has a copy of the arrays.

    Attributes:
      images: uint8 (N, H, W, 3), RGB; or a list of (H, W, 3).
      labels: int (N,), zeros where there are none.
    """

    images: np.ndarray | Sequence[np.ndarray]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int, /) -> Mapping[str, Any]:
        # BMP: no compression, so that reading costs two copies.
        _, data = cv2.imencode(".bmp", self.images[i][..., ::-1])
        return {"image": data.tobytes(), "label": int(self.labels[i])}

    def describe(self, i: int) -> str:
        """Which image it is."""
        return f"image {i} of the array"

    def names_digest(self) -> str:
        """A digest of pixels and labels, by which a run recognises its images."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


def _records(what: str, images: np.ndarray, labels: Any) -> ArrayRecords:
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise UserError(
            f"{what}: images must be uint8 of the shape (N, H, W, 3), RGB, not "
            f"{images.dtype} {images.shape}"
        )
    if not len(images):
        raise UserError(f"{what}: there is no image in it")
    if labels is None:
        return ArrayRecords(images, np.zeros(len(images), np.int64))
    labels = np.asarray(labels)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise UserError(
            f"{what}: labels must be {len(images)} class numbers from 0 on, not "
            f"{labels.dtype} {labels.shape}"
        )
    return ArrayRecords(images, labels.astype(np.int64))


def arrays(
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    *,
    validation: tuple[np.ndarray, Any] | np.ndarray | None = None,
    class_names: Sequence[str] = (),
    name: str = "arrays",
) -> Dataset:
    """A dataset of images in memory.

    Args:
      images: uint8 (N, H, W, 3), RGB: the training images.
      labels: (N,) class numbers from 0 on; None: there are none.
      validation: held-out images, or a pair of them and their labels.
      class_names: a name for every class; default: the numbers.
      name: for messages.

    Raises:
      UserError: the arrays are of other types or shapes, or a held-out label is of no class.
    """
    splits = {"train": _records(f"dataset {name}", images, labels)}
    if validation is not None:
        held = validation if isinstance(validation, tuple) else (validation, None)
        splits["validation"] = _records(f"dataset {name}, validation", *held)
    classes = 0 if labels is None else 1 + int(np.max(splits["train"].labels))
    names = tuple(class_names) or tuple(map(str, range(classes)))
    if len(names) < classes:
        raise UserError(f"dataset {name}: {classes} classes, but {len(names)} names")
    if "validation" in splits and labels is not None:
        most = int(splits["validation"].labels.max())
        if most >= len(names):
            raise UserError(
                f"dataset {name}, validation: has the class {most}; there are {len(names)}"
            )
    return Dataset(name, splits, len(names) if labels is not None else 0, names)
