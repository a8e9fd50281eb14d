"""Batches on the devices."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from unnas_jax.config.sections import Batches
from unnas_jax.core import sharding
from unnas_jax.data import Dataset, pipeline
from unnas_jax.data.records import Records
from unnas_jax.tasks.base import Task

_FOR_DEVICE = ("image", "label", "mask")

DeviceBatch = dict[str, jax.Array]

STEPS_AHEAD = 4
"""The steps that the host may run ahead of the devices, on which their batches then wait."""


class Feed:
    """Makes the streams of batches of one run.

    Args:
      config: sizes, crops and processes.
      dataset: where images come from.
      task: says whether label maps are needed.
      mesh: over which batches are split.
    """

    def __init__(self, config: Batches, dataset: Dataset, task: Task, mesh: Mesh) -> None:
        self._config, self._mesh = config, mesh
        self._names = (*_FOR_DEVICE, *(("record",) if task.records else ()))
        # This colour is zero when normalised.
        self._padding = tuple(dataset.mean)[:: -1 if config.input.swapped_statistics else 1]
        self._common = {
            "resize": config.input.resize,
            "apply_exif": dataset.apply_exif,
            "workers": config.workers,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
            "label_maps": task.label_maps,
            "resampling": config.input.resampling,
            "mirrored": config.input.mirrored,
        }

    @contextlib.contextmanager
    def train(
        self,
        records: Records,
        indices: np.ndarray,
        *,
        seed: int,
        start_step: int,
        steps: Sequence[int] | None = None,
        place: bool = True,
    ) -> Iterator[Iterator[Any]]:
        """A block with an iterator of training batches: of these steps, or of all from a step on.

        They are split over the mesh; if not `place`, they are this process's rows, on the host.
        """
        batches = pipeline.train_batches(
            records,
            indices,
            batch_size=self._config.train.batch_size,
            crop=self._config.input.crop,
            train_crop=self._config.input.train_crop,
            seed=seed,
            start_step=start_step,
            steps=steps,
            **self._common,
        )
        try:
            yield (self._columns(batch, place) for batch in batches)
        finally:
            batches.close()

    def evaluation(
        self, records: Records, indices: np.ndarray, *, place: bool = True
    ) -> Iterator[Any]:
        """One pass in order; the last batch is padded and masked."""
        section = self._config.eval
        whole = section.crop == "whole"
        batches = pipeline.eval_batches(
            records,
            indices,
            batch_size=section.batch_size,
            crop=section.whole_size if whole else self._config.input.crop,
            eval_crop="whole" if whole else "centre",
            padding=self._padding,
            **self._common,
        )
        try:
            for batch in batches:
                yield self._columns(batch, place)
        finally:
            batches.close()

    def _columns(self, batch: Mapping[str, np.ndarray], place: bool) -> Any:
        columns = {name: batch[name] for name in self._names if name in batch}
        return sharding.to_devices(columns, self._mesh) if place else columns
