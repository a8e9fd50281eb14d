"""Masked images: the pixels of hidden patches (He et al., 2022; SimMIM: Xie et al., 2022)."""

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
from unnas_jax.tasks import base
from unnas_jax.tasks.transforms import Augmentation, displayable


@dataclasses.dataclass(frozen=True)
class Masked(base.Task):
    """Images in which random square patches have the mean colour; the answer is what was there.

    The answer is compared on hidden pixels only, by its mean squared error in the normalised
    image. The metric is the share of these pixels' squares that it explains, 0 for an answer of the
    mean colour.
    """

    name: ClassVar[str] = "masked"

    augmentation: Augmentation
    side: int
    patch: int
    ratio: float
    num_classes: int = 0
    input_channels: int = 3

    @classmethod
    def validate(cls, config: TaskConfig) -> None:
        """Raises `UserError` if no patch is hidden, or all are."""
        base.refuse_auxiliary_head(config, cls.name)
        task, crop = config.task, config.input.crop
        patch, ratio = task.mask_patch, task.mask_ratio
        if not 1 <= patch <= crop // 2:
            raise UserError(
                f"config.task.mask_patch={patch}: use from 1 to {crop // 2}, half of "
                "config.input.crop"
            )
        patches = (-(-crop // patch)) ** 2
        if not 0 < round(ratio * patches) < patches:
            raise UserError(
                f"config.task.mask_ratio={ratio}: of {patches} patches some must be hidden and "
                "some must not; use a share between 0 and 1"
            )

    @classmethod
    def create(cls, config: TaskConfig, dataset: Any) -> Self:
        """The task of a config on a dataset."""
        task = config.task
        augmentation = Augmentation.create(config.input, dataset)
        return cls(augmentation, config.input.crop, task.mask_patch, task.mask_ratio)

    def masks(self, key: jax.Array, count: int) -> jax.Array:
        """The hidden pixels, bool (count, S, S), with the same number of patches in each image.

        Where the side is no multiple of the patches' the last ones are cut off.
        """
        across = -(-self.side // self.patch)
        hidden = round(self.ratio * across**2)
        order = jnp.argsort(jax.random.uniform(key, (count, across**2)), axis=1)
        chosen = jnp.argsort(order, axis=1) < hidden
        grid = chosen.reshape(count, across, across)
        pixels = jnp.repeat(jnp.repeat(grid, self.patch, axis=1), self.patch, axis=2)
        return pixels[:, : self.side, : self.side]

    def examples(self, key: jax.Array, batch: base.Batch, *, train: bool) -> base.Examples:
        """One example per image; the targets are its `pixels` (B, S, S, 3) and `hidden` (B, S, S).

        Patches are drawn in evaluation, too.
        """
        augment_key, mask_key = jax.random.split(key)
        x = self.augmentation.normalise(self.augmentation(augment_key, batch["image"], train=train))
        hidden = self.masks(mask_key, len(x))
        inputs = jnp.where(hidden[..., None], 0.0, x)
        targets = {"pixels": x, "hidden": hidden.astype(jnp.float32)}
        return base.Examples(inputs, targets, base.image_weights(batch))

    def panels(self, examples: base.Examples, dataset: Any) -> list[list[base.Panel]]:
        """What the network sees, and the whole image."""
        seen = displayable(self.augmentation, examples.inputs)
        originals = displayable(self.augmentation, examples.targets["pixels"])
        shares = np.mean(np.asarray(examples.targets["hidden"]), axis=(1, 2))
        return [
            [base.Panel(f"{100 * share:.0f}% hidden", a), base.Panel("to be answered", b)]
            for a, b, share in zip(seen, originals, shares, strict=True)
        ]

    def head(self, dtype: Any) -> nn.Module:
        """A 1x1 convolution that answers for the pixels around."""
        del dtype
        return heads.PatchHead(self.side, self.input_channels)

    def score(self, outputs: jax.Array, examples: base.Examples, *, train: bool) -> base.Sums:
        """Squared errors of hidden values; `squares` is what the mean colour would leave."""
        pixels, hidden = examples.targets["pixels"], examples.targets["hidden"]
        weights = hidden * examples.weights[:, None, None]
        errors = jnp.sum((outputs.astype(jnp.float32) - pixels) ** 2, axis=-1)
        squares = jnp.sum(weights * jnp.sum(pixels**2, axis=-1))
        count = pixels.shape[-1] * jnp.sum(weights)
        return base.regression_sums(jnp.sum(weights * errors), squares, count)

    def summarize(self, sums: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """The mean squared error and, as `accuracy`, the explained share."""
        return base.explained(base.total(sums))
