"""Rotation prediction (Gidaris et al., 2018): by how much was the image turned?"""

import dataclasses
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.config.sections import TaskConfig
from unnas_jax.core.precision import compute_dtype
from unnas_jax.layers import heads
from unnas_jax.tasks import base
from unnas_jax.tasks.transforms import Augmentation, displayable


@dataclasses.dataclass(frozen=True)
class Rotation(base.Task):
    """Four examples per image: turned by 0, 90, 180 and 270 degrees counter-clockwise."""

    name: ClassVar[str] = "rotation"

    augmentation: Augmentation
    num_classes: int = 4
    input_channels: int = 3
    precision: str = "float32"

    @classmethod
    def create(cls, config: TaskConfig, dataset: Any) -> Self:
        """The task of a config on a dataset."""
        return cls(Augmentation.create(config.input, dataset), precision=config.precision)

    def examples(self, key: jax.Array, batch: base.Batch, *, train: bool) -> base.Examples:
        """Examples 4i to 4i + 3 are image i turned by k times 90 degrees, of class k."""
        x = self.augmentation.normalise(self.augmentation(key, batch["image"], train=train))
        # In the network's format before they are turned: half as much to move in bfloat16.
        x = x.astype(compute_dtype(self.precision))
        turned = jnp.stack([jnp.rot90(x, k, axes=(1, 2)) for k in range(4)], axis=1)
        return base.Examples(
            inputs=turned.reshape(-1, *x.shape[1:]),
            targets=jnp.tile(jnp.arange(4, dtype=jnp.int32), len(x)),
            weights=jnp.repeat(base.image_weights(batch), 4),
        )

    def panels(self, examples: base.Examples, dataset: Any) -> list[list[base.Panel]]:
        """The four turns and their classes."""
        images = displayable(self.augmentation, examples.inputs)
        all_panels = [
            base.Panel(f"{int(k)}: turned by {90 * int(k)}\N{DEGREE SIGN}", image)
            for k, image in zip(examples.targets, images, strict=True)
        ]
        return [all_panels[i : i + 4] for i in range(0, len(all_panels), 4)]

    def head(self, dtype: Any) -> nn.Module:
        """Global pooling and a linear layer."""
        return heads.ImageHead(self.num_classes, dtype=dtype)

    def score(self, outputs: jax.Array, examples: base.Examples, *, train: bool) -> base.Sums:
        """Cross entropy and hits over the four turns."""
        return base.classification_score(outputs, examples.targets, examples.weights)
