"""Regression (GenNAS: Li et al., NeurIPS 2021): synthetic maps at the end of every stage.

The maps are waves, dots and small copies of the image (see `unnas_jax.tasks.targets`). Maps that
depend on the image are drawn once, by its number: a network learns them by heart. The method's own
setting is one batch of few images, again and again (`config.train.max_images`).
"""

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
from unnas_jax.tasks.combinations import COMBINATIONS, Combination
from unnas_jax.tasks.transforms import Augmentation, displayable, to_uint8

_TARGETS = 20211206  # The purpose of the draws, a part of their key.


@dataclasses.dataclass(frozen=True)
class Regression(base.Task):
    """Images with noise; one answer at the end of each of three stages.

    The loss is the weighted sum of the stages' mean squared errors, the metric the share of the
    targets' squares that is explained, 0 for an answer of zeros.
    """

    name: ClassVar[str] = "regression"
    records: ClassVar[bool] = True
    memorises: ClassVar[bool] = True

    augmentation: Augmentation
    combination: Combination
    seed: jax.Array | int
    num_classes: int = 0
    input_channels: int = 3

    @classmethod
    def validate(cls, config: TaskConfig) -> None:
        """Raises `UserError` if there are no such targets."""
        base.refuse_auxiliary_head(config, cls.name)
        name = config.task.targets
        if name not in COMBINATIONS:
            raise UserError(
                f"config.task.targets={name!r}: use one of {', '.join(sorted(COMBINATIONS))}"
            )
        side = COMBINATIONS[name].side
        if config.input.crop < side:
            raise UserError(
                f"config.input.crop={config.input.crop}: the targets have {side} pixels; use "
                "at least as many"
            )

    @classmethod
    def create(cls, config: TaskConfig, dataset: Any) -> Self:
        """The task of a config on a dataset."""
        augmentation = Augmentation.create(config.input, dataset)
        return cls(augmentation, COMBINATIONS[config.task.targets], config.seed)

    def with_seed(self, seed: jax.Array | int) -> Self:
        """The task of the maps that another seed draws."""
        return dataclasses.replace(self, seed=seed)

    def examples(self, key: jax.Array, batch: base.Batch, *, train: bool) -> base.Examples:
        """One example per image, never augmented; targets are (B, side, side, channels) each."""
        x = self.augmentation.normalise(batch["image"].astype(jnp.float32) / 255.0)
        mean, std = (np.asarray(getattr(self.augmentation, key)) for key in ("mean", "std"))
        bounds = float(np.min(-mean / std)), float(np.max((1.0 - mean) / std))
        targets = self.combination.targets(
            jax.random.fold_in(jax.random.key(self.seed), _TARGETS),
            x,
            base.record_numbers(self, batch),
            bounds,
        )
        return base.Examples(self.combination.noisy(key, x), targets, base.image_weights(batch))

    def panels(self, examples: base.Examples, dataset: Any) -> list[list[base.Panel]]:
        """The image with noise and the first channels of its targets, as red, green and blue."""
        images = displayable(self.augmentation, examples.inputs)
        rows = []
        for number, image in enumerate(images):
            maps = [np.asarray(target[number, ..., :3]) for target in examples.targets]
            shown = [to_uint8(0.5 + 0.5 * one / max(np.abs(one).max(), 1e-6)) for one in maps]
            named = [base.Panel(f"stage {k + 1}", one) for k, one in enumerate(shown)]
            rows.append([base.Panel("with noise", image), *named])
        return rows

    def head(self, dtype: Any) -> nn.Module:
        """A 1x1 convolution at the end of every stage."""
        del dtype
        return heads.StageHeads(self.combination.channels, self.combination.side)

    def score(
        self, outputs: Sequence[jax.Array], examples: base.Examples, *, train: bool
    ) -> base.Sums:
        """Weighted squared errors of images; `squares` is what zeros would leave."""

        def of_images(differences: Sequence[jax.Array]) -> jax.Array:
            parts = zip(self.combination.weights, differences, strict=True)
            each = [weight * jnp.mean(one**2, axis=(1, 2, 3)) for weight, one in parts]
            return jnp.sum(jnp.stack(each).sum(axis=0) * examples.weights)

        pairs = zip(outputs, examples.targets, strict=True)
        errors = of_images([answer.astype(jnp.float32) - target for answer, target in pairs])
        return base.regression_sums(errors, of_images(examples.targets), jnp.sum(examples.weights))

    def summarize(self, sums: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """The loss and, as `accuracy`, the explained share."""
        return base.explained(base.total(sums))
