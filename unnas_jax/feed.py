"""Batches on the devices, as a config's sections `input`, `train` and `eval` say."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from unnas_jax import sharding
from unnas_jax.data import Dataset, pipeline
from unnas_jax.data.registry import Records
from unnas_jax.tasks.base import Task

_FOR_DEVICE = ("image", "label", "mask")

DeviceBatch = dict[str, jax.Array]


class Feed:
    """Makes the streams of batches of one run.

    Args:
      config: a validated config as a dict.
      dataset: where images come from.
      task: says whether label maps are needed.
      mesh: over which batches are split.
    """

    def __init__(self, config: Mapping[str, Any], dataset: Dataset, task: Task, mesh: Mesh) -> None:
        self._config, self._dataset, self._mesh = config, dataset, mesh
        self._common = {
            "crop": config["input"]["crop"],
            "resize": config["input"]["resize"],
            "apply_exif": dataset.apply_exif,
            "workers": config["workers"],
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
            "label_maps": task.label_maps,
        }

    @contextlib.contextmanager
    def train(
        self, records: Records, indices: np.ndarray, *, seed: int, start_step: int
    ) -> Iterator[Iterator[DeviceBatch]]:
        """A block with an endless iterator of training batches from `start_step` on."""
        batches = pipeline.train_batches(
            records,
            indices,
            batch_size=self._config["train"]["batch_size"],
            train_crop=self._config["input"]["train_crop"],
            seed=seed,
            start_step=start_step,
            **self._common,
        )
        try:
            yield (self._on_devices(batch) for batch in batches)
        finally:
            batches.close()

    def evaluation(self, records: Records, indices: np.ndarray) -> Iterator[DeviceBatch]:
        """One pass in order; the last batch is padded and masked."""
        batches = pipeline.eval_batches(
            records, indices, batch_size=self._config["eval"]["batch_size"], **self._common
        )
        try:
            for batch in batches:
                yield self._on_devices(batch)
        finally:
            batches.close()

    def _on_devices(self, batch: Mapping[str, np.ndarray]) -> DeviceBatch:
        columns = {name: batch[name] for name in _FOR_DEVICE if name in batch}
        return sharding.to_devices(columns, self._mesh)
