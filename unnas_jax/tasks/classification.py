"""Supervised classification: the comparison that the pretext tasks are measured against."""

import dataclasses
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.config.sections import TaskConfig
from unnas_jax.core.errors import UserError
from unnas_jax.layers import heads
from unnas_jax.tasks import base, dense
from unnas_jax.tasks.transforms import Augmentation, displayable

_TOP = 5
_MOST = 100  # The most classes for which an evaluation counts a confusion.


@dataclasses.dataclass(frozen=True)
class Classification(base.Task):
    """The dataset's labels as classes, smoothed in training by `label_smoothing`."""

    name: ClassVar[str] = "classification"
    whole_images: ClassVar[bool] = True

    augmentation: Augmentation
    num_classes: int
    label_smoothing: float = 0.0
    input_channels: int = 3

    @classmethod
    def create(cls, config: TaskConfig, dataset: Any) -> Self:
        """The task of a config on a dataset; `UserError` if the dataset has no labels."""
        if dataset.num_classes < 2:
            why = getattr(dataset, "why_unlabelled", "")
            raise UserError(
                f"config.task.name='classification': the dataset {dataset.name!r} has no labels"
                f"{f' ({why})' if why else ''}; use a pretext task (rotation, colorization, "
                "jigsaw) or a labelled dataset"
            )
        return cls(
            Augmentation.create(config.input, dataset),
            dataset.num_classes,
            config.task.label_smoothing,
        )

    def examples(self, key: jax.Array, batch: base.Batch, *, train: bool) -> base.Examples:
        """One example per image."""
        x = self.augmentation.normalise(self.augmentation(key, batch["image"], train=train))
        return base.Examples(x, batch["label"], base.image_weights(batch))

    def panels(self, examples: base.Examples, dataset: Any) -> list[list[base.Panel]]:
        """Image and class."""
        images = displayable(self.augmentation, examples.inputs)
        names = dataset.class_names or [""] * self.num_classes
        return [
            [base.Panel(f"{int(k)}: {names[int(k)]}", image)]
            for k, image in zip(examples.targets, images, strict=True)
        ]

    def head(self, dtype: Any) -> nn.Module:
        """Global pooling and a linear layer."""
        return heads.ImageHead(self.num_classes, dtype=dtype)

    def score(self, outputs: jax.Array, examples: base.Examples, *, train: bool) -> base.Sums:
        """Cross entropy and top-1 hits; in evaluation also top-5 hits and the confusion."""
        targets, weights = examples.targets, examples.weights
        smoothing = self.label_smoothing if train else 0.0
        sums = base.classification_score(outputs, targets, weights, smoothing=smoothing)
        if not train and self.num_classes > _TOP:
            _, best = jax.lax.top_k(outputs, _TOP)
            hits = jnp.any(best == targets[:, None], axis=-1)
            sums["correct_top5"] = jnp.sum(hits * weights)
        if not train and self.num_classes <= _MOST:
            answers = jnp.argmax(outputs, axis=-1)
            sums["confusion"] = dense.confusion_of(targets, answers, weights > 0, self.num_classes)
        return sums
