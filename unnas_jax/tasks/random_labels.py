"""Random labels (RLNAS: Zhang et al., CVPR 2021): the class that was drawn for an image.

Classes are drawn once, uniformly: nothing in an image tells its class, so a network learns them by
heart. How well it does so tells how easily it is trained.
"""

import dataclasses
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.config.sections import TaskConfig
from unnas_jax.core.errors import UserError
from unnas_jax.layers import heads
from unnas_jax.tasks import base
from unnas_jax.tasks.transforms import Augmentation, displayable

_LABELS = 20210609  # The purpose of the draws, a part of their key.


@dataclasses.dataclass(frozen=True)
class RandomLabels(base.Task):
    """One example per image; its class is a function of the seed and the image's number."""

    name: ClassVar[str] = "random_labels"
    records: ClassVar[bool] = True
    memorises: ClassVar[bool] = True

    augmentation: Augmentation
    num_classes: int
    seed: jax.Array | int
    input_channels: int = 3

    @classmethod
    def validate(cls, config: TaskConfig) -> None:
        """Raises `UserError` for a number of classes that says nothing."""
        classes = config.task.random_classes
        if classes < 0 or classes == 1:
            raise UserError(
                f"config.task.random_classes={classes}: use at least 2, or 0 for as many as the "
                "dataset has"
            )

    @classmethod
    def create(cls, config: TaskConfig, dataset: Any) -> Self:
        """The task of a config on a dataset; `UserError` if nothing tells how many classes."""
        classes = config.task.random_classes or dataset.num_classes
        if classes < 2:
            raise UserError(
                f"config.task.random_classes=0: the dataset {dataset.name!r} has no classes; give "
                "their number"
            )
        return cls(Augmentation.create(config.input, dataset), classes, config.seed)

    def with_seed(self, seed: jax.Array | int) -> Self:
        """The task of the classes that another seed draws."""
        return dataclasses.replace(self, seed=seed)

    def labels(self, records: jax.Array) -> jax.Array:
        """The classes of images by their numbers: int32 (B,)."""
        key = jax.random.fold_in(jax.random.key(self.seed), _LABELS)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, records)
        return jax.vmap(lambda one: jax.random.randint(one, (), 0, self.num_classes))(keys)

    def examples(self, key: jax.Array, batch: base.Batch, *, train: bool) -> base.Examples:
        """One example per image."""
        x = self.augmentation.normalise(self.augmentation(key, batch["image"], train=train))
        labels = self.labels(base.record_numbers(self, batch)).astype(jnp.int32)
        return base.Examples(x, labels, base.image_weights(batch))

    def panels(self, examples: base.Examples, dataset: Any) -> list[list[base.Panel]]:
        """Image and class."""
        images = displayable(self.augmentation, examples.inputs)
        return [
            [base.Panel(f"drawn: {int(k)}", image)]
            for k, image in zip(examples.targets, images, strict=True)
        ]

    def head(self, dtype: Any) -> nn.Module:
        """Global pooling and a linear layer."""
        return heads.ImageHead(self.num_classes, dtype=dtype)

    def score(self, outputs: jax.Array, examples: base.Examples, *, train: bool) -> base.Sums:
        """Cross entropy and hits."""
        return base.classification_score(outputs, examples.targets, examples.weights)
