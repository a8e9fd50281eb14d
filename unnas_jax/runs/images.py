"""The images of a search: the halves that it learns from, those it is judged on, their batches."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from unnas_jax.config.schema import SearchConfig
from unnas_jax.config.sections import Batches
from unnas_jax.data import Dataset, halves
from unnas_jax.data.inspection import check_images
from unnas_jax.data.order import evaluation_sample
from unnas_jax.data.records import Records
from unnas_jax.learning.feed import Feed
from unnas_jax.tasks import registry
from unnas_jax.tasks.base import Task


@dataclasses.dataclass(frozen=True)
class Images:
    """What a search sees.

    Attributes:
      task: what is learned.
      records: the dataset's training images.
      half_a, half_b: their numbers, for the weights and for the alphas.
      held_out: the numbers of those that evaluations take.
      feed: makes batches.
      seed: of the run.
    """

    task: Task
    records: Records
    half_a: np.ndarray
    half_b: np.ndarray
    held_out: np.ndarray
    feed: Feed
    seed: int

    @classmethod
    def of(cls, config: SearchConfig, dataset: Dataset, mesh: Mesh) -> "Images":
        """The images of a search's config.

        Raises:
          UserError: the task cannot be had with this dataset, or its images are too small.
        """
        task, records = registry.create(config, dataset), dataset.splits["train"]
        check_images(dataset, config.input.crop, task)
        seed = config.seed
        half_a, half_b = (
            evaluation_sample(half, config.train.max_images, seed)
            for half in halves(len(records), seed)
        )
        judged = half_a if task.memorises else half_b
        held_out = evaluation_sample(judged, config.eval.max_images, seed)
        feed = Feed(Batches.of(config), dataset, task, mesh)
        return cls(task, records, half_a, half_b, held_out, feed, seed)

    def train(self, number: int, start_step: int, steps: Sequence[int] | None = None) -> Any:
        """A block with the batches of half A (0) or B (1), see `Feed.train`."""
        half, seed = (self.half_a, self.half_b)[number], 2 * self.seed + number
        return self.feed.train(self.records, half, seed=seed, start_step=start_step, steps=steps)

    def first(self, count: int) -> Iterator[Any]:
        """The first batches of half A, always the same."""
        with self.train(0, 0) as batches:
            yield from itertools.islice(batches, count)

    def evaluation(self) -> Iterator[Any]:
        """The held-out images in order, once."""
        return self.feed.evaluation(self.records, self.held_out)
