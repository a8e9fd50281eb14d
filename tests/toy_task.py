"""A task of one's own, in one file: what docs/walks/task.md walks through."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

import unnas_jax as un
from unnas_jax.layers import heads
from unnas_jax.tasks import base
from unnas_jax.tasks.transforms import Augmentation, displayable


@un.register_task
@dataclasses.dataclass(frozen=True)
class Mirroring(base.Task):
    """Two examples per image, itself and upside down: which one is it?"""

    name: ClassVar[str] = "mirroring"

    augmentation: Augmentation
    num_classes: int = 2
    input_channels: int = 3

    @classmethod
    def create(cls, config, dataset):
        return cls(Augmentation.create(config.input, dataset))

    def examples(self, key, batch, *, train):
        x = self.augmentation.normalise(self.augmentation(key, batch["image"], train=train))
        return base.Examples(
            inputs=jnp.concatenate([x, x[:, ::-1]]),
            targets=jnp.repeat(jnp.arange(2, dtype=jnp.int32), len(x)),
            weights=jnp.tile(base.image_weights(batch), 2),
        )

    def head(self, dtype):
        return heads.ImageHead(self.num_classes, dtype=dtype)

    def score(self, outputs, examples, *, train):
        return base.classification_score(outputs, examples.targets, examples.weights)

    def panels(self, examples, dataset):
        images = displayable(self.augmentation, jax.device_get(examples.inputs))
        half = len(images) // 2
        pairs = zip(images[:half], images[half:], strict=True)
        return [[base.Panel("0: itself", a), base.Panel("1: upside down", b)] for a, b in pairs]
