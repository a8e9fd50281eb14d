"""The trainings of all seeds: the images that they share, their batches, their evaluation."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from unnas_jax.config.options import Config
from unnas_jax.config.schema import TrainConfig
from unnas_jax.core import sharding
from unnas_jax.data import Dataset, halves
from unnas_jax.data.order import evaluation_sample
from unnas_jax.data.records import Records
from unnas_jax.learning import statistics, trainer
from unnas_jax.learning.feed import DeviceBatch, Feed
from unnas_jax.learning.trainer import TrainState, TrainSteps
from unnas_jax.tasks.base import Sums, Task, total

_LOG = logging.getLogger("unnas_jax")


@dataclasses.dataclass(frozen=True)
class Subset:
    """Some examples of a split."""

    split: str
    records: Records
    indices: np.ndarray


def subsets(config: Config, dataset: Dataset, task: Task) -> tuple[Subset, Subset]:
    """The examples to train on and the ones to evaluate on.

    Where the dataset has no held-out split, the second half of a fixed permutation is held out. A
    task that memorises is evaluated on what it trained on.
    """
    config = TrainConfig.of(config)
    records = dataset.splits["train"]
    split = next((name for name in ("validation", "test") if name in dataset.splits), None)
    if task.memorises:
        training = Subset("train", records, np.arange(len(records)))
        held_out = training
    elif split is None:
        kept, held = halves(len(records), 0)
        training, held_out = Subset("train", records, kept), Subset("train", records, held)
        _LOG.warning(
            "The dataset %s has no split validation or test: half of its images is held out.",
            dataset.name,
        )
    else:
        training = Subset("train", records, np.arange(len(records)))
        held_out = Subset(split, dataset.splits[split], np.arange(len(dataset.splits[split])))

    def few(subset: Subset, count: int) -> Subset:
        indices = evaluation_sample(subset.indices, count, config.seed)
        return dataclasses.replace(subset, indices=indices)

    training = few(training, config.train.max_images)
    return training, few(training if task.memorises else held_out, config.eval.max_images)


@dataclasses.dataclass(frozen=True)
class Seeds:
    """The trainings of all seeds: in groups, each of which is one program, taken in turn.

    Attributes:
      groups: the seeds of every group's networks, of several cells each seed that often; states
        and streams are lists with one for each.
      confusion: for every seed, how often class i (row) was answered as j in the last evaluation;
        empty if the task does not count it.
      batch_size, precise_bn_images: the images of one batch for statistics, and of all of them.
    """

    groups: list[list[int]]
    steps: TrainSteps
    task: Task
    feed: Feed
    mesh: Mesh
    training: Subset
    held_out: Subset
    batch_size: int
    precise_bn_images: int
    confusion: list[np.ndarray] = dataclasses.field(default_factory=list)

    def batches(self, stack: contextlib.ExitStack, start_step: int) -> list[Iterator[DeviceBatch]]:
        """Training batches (S, B, ...): every seed has its own order, crops and augmentation.

        Networks of several cells have a seed's batch in common.
        """

        def stream(seed: int) -> Iterator[Any]:
            return stack.enter_context(
                self.feed.train(
                    self.training.records,
                    self.training.indices,
                    seed=seed,
                    start_step=start_step,
                    place=False,
                )
            )

        def stacked(streams: list[Iterator[Any]]) -> Iterator[DeviceBatch]:
            for of_seeds in zip(*streams, strict=True):
                yield trainer.stack_seeds(of_seeds, self.mesh)

        return [stacked([stream(seed) for seed in dict.fromkeys(group)]) for group in self.groups]

    def precise(self, states: list[TrainState]) -> list[TrainState]:
        """The states with the statistics of some training batches; see `statistics.pooled`."""
        count = -(-self.precise_bn_images // self.batch_size)
        if count == 0:
            return states
        result = []
        with contextlib.ExitStack() as stack:
            for state, batches in zip(states, self.batches(stack, 0), strict=True):
                found = [
                    jax.device_get(self.steps.statistics(state, next(batches), number))
                    for number in range(count)
                ]
                pooled = statistics.pooled(found, [self.batch_size] * count)
                result.append(trainer.with_statistics(state, sharding.replicate(pooled, self.mesh)))
        return result

    def evaluate(self, states: list[TrainState]) -> list[dict[str, float]]:
        """The metrics of every seed on the held-out images."""
        states = self.precise(states)
        sums: list[list[Sums]] = [[] for _ in states]
        batches = self.feed.evaluation(self.held_out.records, self.held_out.indices)
        for number, batch in enumerate(batches):
            for of_group, state in zip(sums, states, strict=True):
                of_group.append(self.steps.evaluate(state, batch, number))
        of_seeds = [
            [{name: value[k] for name, value in batch.items()} for batch in of_group]
            for of_group, group in zip(jax.device_get(sums), self.groups, strict=True)
            for k in range(len(group))
        ]
        sums_of_all = [total(of_seed) for of_seed in of_seeds]
        self.confusion[:] = [
            of_seed["confusion"] for of_seed in sums_of_all if "confusion" in of_seed
        ]
        return [self.task.summarize(of_seed) for of_seed in of_seeds]
