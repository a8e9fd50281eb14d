"""Values of scores for many cells, one after the other or in several processes."""

import collections
import concurrent.futures
import dataclasses
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from unnas_jax.config import schema
from unnas_jax.core import environment, logs
from unnas_jax.core.errors import UserError
from unnas_jax.data.workers import cores, start_worker
from unnas_jax.sweep import local_engine
from unnas_jax.sweep.scores import registry, shared, subjects
from unnas_jax.sweep.scores.registry import Batch

Asked = tuple[str, str]
"""The text of a cell, and a score."""

Found = tuple[float, float]
"""The value, and the seconds that it took."""


@dataclasses.dataclass(frozen=True)
class Judging:
    """The settings on which values depend, besides the cell and the score.

    Attributes:
      space: of the cells.
      batch: the images.
      width: channels of the stem.
      depth: cells of each of the three stages.
      side: of the images, in pixels.
      seed: of the weights.
      supernet: a workdir, of the scores that need one.
    """

    space: str
    batch: Batch
    width: int
    depth: int
    side: int
    seed: int
    supernet: str = ""

    def config(self, cell: str) -> dict[str, Any]:
        """The config of a cell's network."""
        config = schema.training().to_dict()
        config["network"].update(
            space=self.space,
            genotype=cell,
            width=str(self.width),
            cells=3 * self.depth,
            modules=self.depth,
            stem="cifar",
            auxiliary_weight=0.0,
        )
        config["input"]["crop"] = self.side
        return config

    def value(self, asked: Asked) -> Found:
        """Computes a value."""
        start, (cell, score) = time.monotonic(), asked
        supernet = None
        if self.supernet and registry.SCORES[score].needs_supernet:
            supernet = shared.supernet(self.supernet, self.space)
        with logs.telling(f"{score} of {cell[:60]}", after=30.0):
            subject = subjects.subject(self.config(cell), self.batch, self.seed, supernet)
            return registry.value(score, subject), time.monotonic() - start


def values(judging: Judging, asked: Sequence[Asked], workers: int) -> Iterator[Found]:
    """The values in the order in which they are asked for.

    Args:
      judging: the settings on which they depend.
      asked: cells and scores.
      workers: processes, on CPUs each with cores of its own, otherwise with a device or its part;
        1: this process. Each compiles its programs.

    Raises:
      UserError: a score cannot judge the cells, or a worker died.
    """
    if workers == 1:
        yield from map(judging.value, asked)
        return
    with _Pools(judging, workers) as pools:
        yield from pools.values(asked)


_judging: Judging | None = None


def _begin(judging: Judging) -> None:
    """Runs first in a worker."""
    global _judging
    start_worker()
    local_engine.settle()
    _judging = judging


def _value(asked: Asked) -> Found:
    assert _judging is not None
    return _judging.value(asked)


class _Pools:
    """A process for every place, each in a pool of its own."""

    def __init__(self, judging: Judging, workers: int) -> None:
        platform, count = local_engine.devices()
        places = local_engine.slots(
            platform,
            count,
            workers_per_device=-(-workers // count),
            cores_per_worker=max(1, cores() // workers),
        )
        context = multiprocessing.get_context("spawn")
        self._pools = []
        for place in places[:workers]:
            pool = concurrent.futures.ProcessPoolExecutor(1, context, _begin, (judging,))
            with environment.changed(place):
                pool.submit(os.getpid)  # Starts it, with what it is told here.
            self._pools.append(pool)

    def __enter__(self) -> "_Pools":
        return self

    def __exit__(self, *error: object) -> None:
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)

    def values(self, asked: Sequence[Asked]) -> Iterator[Found]:
        waiting = collections.deque(enumerate(asked))
        running: dict[concurrent.futures.Future[Found], tuple[int, Any]] = {}
        done: dict[int, Found] = {}

        def give(pool: Any) -> None:
            if waiting:
                number, one = waiting.popleft()
                running[pool.submit(_value, one)] = number, pool

        try:
            for pool in self._pools:
                give(pool)
            for number in range(len(asked)):
                while number not in done:
                    ended, _ = concurrent.futures.wait(
                        running, return_when=concurrent.futures.FIRST_COMPLETED
                    )
                    for future in ended:
                        place, pool = running.pop(future)
                        done[place] = future.result()
                        give(pool)
                yield done.pop(number)
        except BrokenProcessPool as error:
            raise UserError(
                "a worker died, as by lack of memory; the same command continues, with fewer "
                "--workers if it dies again"
            ) from error
