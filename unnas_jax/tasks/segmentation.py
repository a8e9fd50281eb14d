"""Semantic segmentation: the class of every pixel, learned from label maps."""

import colorsys
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.config.sections import TaskConfig
from unnas_jax.core.errors import UserError
from unnas_jax.layers import heads
from unnas_jax.tasks import base, dense
from unnas_jax.tasks.transforms import Augmentation, displayable


@dataclasses.dataclass(frozen=True)
class Segmentation(base.Task):
    """The dataset's label maps as targets; pixels labelled 255 do not count."""

    name: ClassVar[str] = "segmentation"
    dense: ClassVar[bool] = True
    label_maps: ClassVar[bool] = True
    whole_images: ClassVar[bool] = True
    single_reduction: ClassVar[bool] = True
    metric: ClassVar[str] = "miou"

    augmentation: Augmentation
    num_classes: int
    aspp_channels: int
    aspp_rates: tuple[int, ...]
    input_channels: int = 3

    @classmethod
    def validate(cls, config: TaskConfig) -> None:
        """Raises `UserError` for an ASPP without channels or with impossible rates."""
        channels, rates = config.task.aspp_channels, tuple(config.task.aspp_rates)
        if channels < 1:
            raise UserError(f"config.task.aspp_channels={channels}: must be greater than 0")
        if any(not isinstance(rate, int) or rate < 1 for rate in rates):
            raise UserError(f"config.task.aspp_rates={rates}: give whole numbers from 1 on")
        if len(set(rates)) < len(rates):
            raise UserError(f"config.task.aspp_rates={rates}: give each rate once")

    @classmethod
    def create(cls, config: TaskConfig, dataset: Any) -> Self:
        """The task of a config on a dataset; `UserError` if the dataset has no labels."""
        if dataset.num_classes < 2:
            raise UserError(
                f"config.task.name='segmentation': the dataset {dataset.name!r} has no labels; "
                "use a dataset of images and label maps, such as cityscapes"
            )
        task = config.task
        return cls(
            Augmentation.create(config.input, dataset),
            dataset.num_classes,
            task.aspp_channels,
            tuple(task.aspp_rates),
        )

    def examples(self, key: jax.Array, batch: base.Batch, *, train: bool) -> base.Examples:
        """One example per image; image and label map are flipped alike."""
        if batch["label"].ndim != 3:
            raise UserError(
                "config.task.name='segmentation': the dataset has one label an image, not one a "
                "pixel; use a dataset of images and label maps, such as cityscapes"
            )
        x = self.augmentation.normalise(self.augmentation(key, batch["image"], train=train))
        labels = self.augmentation.labels(key, batch["label"].astype(jnp.int32), train=train)
        return base.Examples(x, labels, base.image_weights(batch))

    def panels(self, examples: base.Examples, dataset: Any) -> list[list[base.Panel]]:
        """Image and painted classes; ignored pixels are black."""
        images = displayable(self.augmentation, examples.inputs)
        colors = palette(self.num_classes, dataset.colors)
        rows = []
        for image, target in zip(images, np.asarray(examples.targets), strict=True):
            classes, counts = np.unique(target[target < self.num_classes], return_counts=True)
            largest = classes[np.argsort(-counts)][:3]
            words = ", ".join(dataset.class_names[k] for k in largest)
            rows.append([base.Panel("", image), base.Panel(words, colors[target])])
        return rows

    def head(self, dtype: Any) -> nn.Module:
        """ASPP; `score` upsamples."""
        return heads.AsppHead(self.num_classes, self.aspp_channels, self.aspp_rates, dtype=dtype)

    def score(self, outputs: jax.Array, examples: base.Examples, *, train: bool) -> base.Sums:
        """Per-pixel cross entropy and hits; in evaluation also `confusion`, (classes, classes)."""
        return dense.pixel_score(outputs, examples.targets, examples.weights, confusion=not train)

    def by_class(self, confusion: np.ndarray) -> tuple[str, np.ndarray]:
        """Intersection over union."""
        return "IoU", ious(confusion)

    def summarize(self, sums: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Loss, pixel accuracy and the mIoU of all pixels together."""
        summed = base.total(sums)
        return {**base.means(summed), "miou": mean_iou(summed["confusion"])}


def ious(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union by class, (K,), of a confusion (K, K); NaN where it is not."""
    intersection = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    return np.divide(intersection, union, out=np.full(len(union), np.nan), where=union > 0)


def palette(classes: int, customary: Sequence[tuple[int, ...]] = ()) -> np.ndarray:
    """A colour for every number of a label map, uint8 (256, 3); black for numbers of no class."""
    colors = np.zeros((256, 3), np.uint8)
    for k in range(classes):
        hues = np.multiply(colorsys.hsv_to_rgb(k / classes, 0.6 + 0.4 * (k % 2), 0.9), 255)
        colors[k] = customary[k] if customary else hues
    return colors


def mean_iou(confusion: np.ndarray) -> float:
    """The mean over classes of intersection over union.

    Args:
      confusion: (K, K), pixels of class i (row) answered as j, summed over the whole split.

    Returns:
      The mean over the classes that occur, as a label or as an answer; 0 where none does.
    """
    found = ious(confusion)
    return float(np.nanmean(found)) if np.isfinite(found).any() else 0.0
