"""Contrastive learning (SimCLR: Chen et al., 2020): which two views show the same image?"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.config.sections import TaskConfig
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.layers import heads
from unnas_jax.tasks import base
from unnas_jax.tasks.transforms import Augmentation, displayable, random_crops, random_jitter

_ALIKE = np.float32(-1e9)
"""The similarity of pairs that do not count: a view with itself, and padding."""

_TINY = np.float32(1e-12)


@dataclasses.dataclass(frozen=True)
class Contrastive(base.Task):
    """Two views of every image: crops with other colours, mirrored or not.

    The loss is NT-Xent, over all views of the global batch. The metric is how often the most
    similar one of the others is the view of the same image.
    """

    name: ClassVar[str] = "contrastive"

    augmentation: Augmentation
    temperature: float
    dimensions: int
    area: float
    num_classes: int = 0
    input_channels: int = 3

    @classmethod
    def validate(cls, config: TaskConfig) -> None:
        """Raises `UserError` for impossible values, and a batch in which nothing is compared."""
        base.refuse_auxiliary_head(config, cls.name)
        task = config.task
        for key, good, remedy in (
            ("temperature", task.temperature > 0, "must be greater than 0"),
            ("projection", task.projection >= 1, "must be at least 1"),
            ("view_area", 0 < task.view_area <= 1, "is a share above 0, up to 1"),
        ):
            if not good:
                raise UserError(f"config.task.{key}={getattr(task, key)}: {remedy}")
        for name, section in (("train", config.train), ("eval", config.eval)):
            if section.batch_size < 2:
                raise UserError(
                    f"config.{name}.batch_size={section.batch_size}: views are told "
                    "from those of other images in the batch; use at least 2"
                )

    @classmethod
    def create(cls, config: TaskConfig, dataset: Any) -> Self:
        """The task of a config on a dataset."""
        task = config.task
        return cls(
            Augmentation.create(config.input, dataset),
            task.temperature,
            task.projection,
            task.view_area,
        )

    def examples(self, key: jax.Array, batch: base.Batch, *, train: bool) -> base.Examples:
        """Examples 2i and 2i + 1 are the views of image i, which is the target.

        Views are drawn in evaluation, too.
        """
        crop_key, jitter_key, augment_key = jax.random.split(key, 3)
        twice = jnp.repeat(batch["image"], 2, axis=0)
        x = self.augmentation(augment_key, twice, train=True)
        x = random_crops(crop_key, x, self.area)
        x = random_jitter(jitter_key, x)
        return base.Examples(
            self.augmentation.normalise(x),
            jnp.repeat(jnp.arange(len(batch["image"]), dtype=jnp.int32), 2),
            jnp.repeat(base.image_weights(batch), 2),
        )

    def panels(self, examples: base.Examples, dataset: Any) -> list[list[base.Panel]]:
        """The two views."""
        images = displayable(self.augmentation, examples.inputs)
        pairs = zip(images[::2], images[1::2], strict=True)
        return [[base.Panel("one view", a), base.Panel("another", b)] for a, b in pairs]

    def head(self, dtype: Any) -> nn.Module:
        """Pooling and a small network."""
        del dtype
        return heads.ProjectionHead(self.dimensions)

    def score(self, outputs: jax.Array, examples: base.Examples, *, train: bool) -> base.Sums:
        """NT-Xent and how often the partner is found."""
        return nt_xent(outputs, examples.weights, self.temperature)

    def summarize(self, sums: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Loss, accuracy and, as `majority`, the accuracy of guessing."""
        summed = base.total(sums)
        found = base.means(summed)
        found["majority"] = float(summed["guess"]) / max(float(summed["count"]), 1.0)
        return found


def nt_xent(outputs: jax.Array, weights: jax.Array, temperature: float) -> base.Sums:
    """The normalised, temperature-scaled cross entropy of SimCLR (equation 1), summed.

    Of view i with its partner j, among all other views k of the global batch:

        -log(exp(s_ij / t) / sum_{k != i} exp(s_ik / t)),    s_ik = cosine of i and k

    Inside of `sharding.by_device` the rows are this device's, and compared with those of all.

    Args:
      outputs: (N, D); rows 2i and 2i + 1 are partners.
      weights: float32 (N,), 0 for padding, which is compared with nothing.
      temperature: t.

    Returns:
      `loss`, `correct` and `count` as of any task, and `guess`, the hits that guessing has.
    """
    x = outputs.astype(jnp.float32)
    x = x / jnp.sqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), _TINY))
    others, valid = sharding.gathered(x), sharding.gathered(weights) > 0
    rows = sharding.first_row(len(x)) + jnp.arange(len(x))
    exact = jax.lax.Precision.HIGHEST
    similar = jnp.matmul(x, others.T, precision=exact) / temperature
    compared = valid[None] & (jnp.arange(len(others))[None] != rows[:, None])
    among = jnp.where(compared, similar, _ALIKE)
    partner = rows ^ 1
    of_partner = jnp.take_along_axis(similar, partner[:, None], axis=1)[:, 0]
    nll = jax.nn.logsumexp(among, axis=1) - of_partner
    hits = (jnp.argmax(among, axis=1) == partner).astype(jnp.float32)
    number = jnp.sum(weights)
    return {
        "loss": jnp.sum(jnp.where(weights > 0, nll, 0.0) * weights),
        "correct": jnp.sum(hits * weights),
        "count": number,
        "guess": number / jnp.maximum(jnp.sum(valid) - 1.0, 1.0),
    }
