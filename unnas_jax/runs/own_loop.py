"""A search step for loops of one's own: own batches and optimizers in, metrics out."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

from unnas_jax.config import schema
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.methods.base import SearchState, Setting
from unnas_jax.methods.darts import Darts
from unnas_jax.runs import pieces, validation
from unnas_jax.spaces.registry import Cells
from unnas_jax.tasks.base import Sums, Task

Images = np.ndarray | tuple[np.ndarray, np.ndarray] | Mapping[str, np.ndarray]
"""uint8 (B, S, S, 3), alone, with labels (B,), or as `image` and `label`."""


class SearchStep:
    """Steps of DARTS, on all devices, by `unnas_jax.methods.darts.Darts`.

    Args:
      task: what the supernet learns, see `unnas_jax.tasks.registry.task`.
      weights, alphas: the optimizers; optax clips, decays and schedules.
      crop: the side of the images, in pixels.
      order: 1, or 2 for the gradient of the alphas through a step of the weights.
      seed: of all draws.
      precision: float32, bfloat16, or auto: bfloat16 where there is an accelerator.
      network: `width`, `cells`, `nodes`, `stem` and other fields of a search's config.network.

    Attributes:
      supernet: the Flax module whose parameters are in `state.params`.

    Raises:
      UserError: a value is impossible.
    """

    def __init__(
        self,
        task: Task,
        weights: optax.GradientTransformation,
        alphas: optax.GradientTransformation,
        *,
        crop: int = 32,
        order: int = 1,
        seed: int = 0,
        precision: str = "auto",
        **network: Any,
    ) -> None:
        config = schema.search()
        config.input.update(crop=crop, resize=crop)
        config.network.stem = "cifar"
        pieces.fill(config.network, network)
        config.search.update(order=order, arch_start_epoch=0.0)
        config.seed, config.precision = seed, precision
        validation.validate(config)
        self._task, self._crop, self._mesh = task, crop, sharding.data_mesh()
        optimizers = {"weights": weights, "alphas": alphas}
        part = MethodConfig.of(config.to_dict())
        self._method = Darts(
            Setting(part, task, self._mesh, steps_per_epoch=1, optimizers=optimizers)
        )
        self.supernet = self._method.supernet

    def init(self) -> SearchState:
        """Draws weights and alphas."""
        return self._method.init()

    def __call__(
        self, state: SearchState, images_a: Images, images_b: Images | None = None
    ) -> tuple[SearchState, dict[str, dict[str, float]]]:
        """A step of the alphas on B, if there is one, and then one of the weights on A.

        Args:
          state: the state, which cannot be used again: the new state takes its memory.
          images_a, images_b: batches of the two halves, of sizes that the devices divide.

        Returns:
          The new state, and the metrics of both batches by what learned from them, `weights` and
          `alphas`: loss, accuracy and what else the task has.
        """
        batch_b = None if images_b is None else self._batch(images_b)
        state, sums = self._method.step(state, self._batch(images_a), batch_b)
        metrics = {"weights": self._metrics(sums["weights"])}
        if sums["alpha"] is not None:
            metrics["alphas"] = self._metrics(sums["alpha"])
        return state, metrics

    def evaluate(self, state: SearchState, images: Images, number: int = 0) -> dict[str, float]:
        """The metrics of a batch, with running statistics and without augmentation.

        Args:
          state: the state, which is not changed.
          images: the batch.
          number: of the batch, from which a task's draws come.
        """
        return self._metrics(self._method.evaluate(state, self._batch(images), number))

    def genotype(self, state: SearchState) -> Cells:
        """The discrete cells that the alphas stand for now."""
        return self._method.cells(jax.device_get(state.alphas))

    def _metrics(self, sums: Sums | None) -> dict[str, float]:
        return self._task.summarize([jax.device_get(sums)])

    def _batch(self, images: Images) -> dict[str, jax.Array]:
        labels: Any = None
        if isinstance(images, Mapping):
            pixels, labels = np.asarray(images["image"]), images.get("label")
        elif isinstance(images, tuple):
            pixels, labels = np.asarray(images[0]), images[1]
        else:
            pixels = np.asarray(images)
        side = self._crop
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, 3):
            raise UserError(
                f"a batch must be uint8 of the shape (B, {side}, {side}, 3), RGB, not "
                f"{pixels.dtype} {pixels.shape}; the argument crop says the side"
            )
        if len(pixels) % self._mesh.size:
            raise UserError(
                f"a batch of {len(pixels)} images: not divisible by the {self._mesh.size} devices"
            )
        if labels is None:
            labels = np.zeros(pixels.shape[:-1] if self._task.label_maps else len(pixels))
        batch = {"image": pixels, "label": np.asarray(labels, np.int32)}
        if isinstance(images, Mapping) and "record" in images:
            batch["record"] = np.asarray(images["record"], np.int32)
        return sharding.to_devices(batch, self._mesh)
