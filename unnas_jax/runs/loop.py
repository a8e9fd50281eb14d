"""The loop of every run: steps, evaluations, checkpoints, and an orderly end.

It knows nothing of what is learned. A `Learner` takes the steps and evaluates itself; the loop says
when, keeps the host a few steps ahead of the devices, tells about progress, saves state and
position together, and stops at a signal or at the first value that is not finite.
"""

import collections
import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import jax
import numpy as np

from unnas_jax.config.sections import Pace
from unnas_jax.core import compilation, distributed, stopping
from unnas_jax.core.logs import telling
from unnas_jax.learning.feed import STEPS_AHEAD
from unnas_jax.learning.progress import Progress
from unnas_jax.runs import checkpoint, snapshot
from unnas_jax.tasks.base import Sums

_LOG = logging.getLogger("unnas_jax")


@dataclasses.dataclass(frozen=True)
class Plan:
    """The schedule of a run, in steps.

    Attributes:
      total: of the run.
      per_epoch: of an epoch.
      batch_size: examples that a step takes from each stream of data.
      log_every, save_every: how often a line is written and a checkpoint saved.
      evaluate_every: how often held-out examples are evaluated, besides at the end; what was
        evaluated is saved.
      save_seconds: the least time from the start, and from one checkpoint to the next. If it is
        not 0, none is saved at the end; a signal that stops the run always saves.
      most: of the run, also when it is delayed.
    """

    total: int
    per_epoch: int
    batch_size: int
    log_every: int
    save_every: int
    evaluate_every: int
    save_seconds: float = 0.0
    most: int = sys.maxsize

    @classmethod
    def of(
        cls,
        config: Pace,
        per_epoch: int,
        steps: int,
        *,
        every_epochs: int,
        save_seconds: float = 0.0,
    ) -> Self:
        """The plan of a config's run.

        Args:
          config: its length, its lines and checkpoints.
          per_epoch: steps of an epoch.
          steps: of the whole run; config.train.max_steps may end it before.
          every_epochs: how often it evaluates.
          save_seconds: see the class.
        """
        most = config.train.max_steps if config.train.max_steps > 0 else sys.maxsize
        return cls(
            total=min(steps, most),
            per_epoch=per_epoch,
            batch_size=config.train.batch_size,
            log_every=config.log_every_steps,
            save_every=config.checkpoint_every_steps,
            evaluate_every=per_epoch * every_epochs,
            save_seconds=save_seconds,
            most=most,
        )

    def delayed(self, steps: int) -> Self:
        """The plan of a run that ends so many steps later."""
        return dataclasses.replace(self, total=min(self.total + steps, self.most))

    def epoch(self, step: int) -> float:
        """The epochs done after so many steps."""
        return step / self.per_epoch

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation follows after so many steps."""
        return step == self.total or step % self.evaluate_every == 0

    def saves(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint follows after so many steps, `seconds` after the last one."""
        due = self.evaluates(step) or step % self.save_every == 0
        if self.save_seconds:
            due &= step < self.total and seconds >= self.save_seconds
        return due


class Learner(Protocol):
    """The part that a run trains: a search method with its supernet, or networks of some seeds."""

    @property
    def state(self) -> Any:
        """The arrays that a checkpoint holds; the same on all devices."""

    @property
    def position(self) -> Mapping[str, Any]:
        """What else is needed to go on from there, as JSON; kept with the step."""

    @property
    def delay(self) -> int:
        """By how many steps the run ends later than planned; only `step` changes it."""

    def step(self, step: int) -> Mapping[str, Sums | None]:
        """Takes the step after `step` finished ones, without waiting for the devices.

        Returns:
          The sums of the batches by what was trained on them, 'weights' first, on the devices;
          None for what was not trained.
        """

    def evaluate(self) -> Mapping[str, float]:
        """The metrics on held-out examples, `metric` of the loop among them."""

    def record(self, step: int, metrics: Mapping[str, float]) -> bool | None:
        """Writes the results of an evaluation; called only with finite metrics and state.

        Returns:
          whether the run is to end here.
        """


class Loop:
    """Runs a learner from a step to the end of its plan.

    Args:
      plan: the schedule.
      learner: what is trained.
      checkpoints: where state and position are kept.
      metric: of `Learner.evaluate`, by which the best checkpoint is kept; more is better.
      identity: kept with every position, so that a run which continues can tell whether it
        still is the same.
      images: the number in a step, for the rate in images/s.
      schedule: step -> learning rate, for the log; None if it is not known.
      write: receives rows of metrics: write(kind, step, **values).
      publish: called before a checkpoint is saved, see `Workdir.publish`.
      after_save: called behind every checkpoint of an evaluation, for what is not urgent.

    Attributes:
      ended: whether the learner has ended the run.
    """

    def __init__(
        self,
        plan: Plan,
        learner: Learner,
        checkpoints: checkpoint.Checkpoints,
        *,
        metric: str,
        identity: Mapping[str, Any],
        images: int,
        schedule: Callable[[int], Any] | None,
        write: Callable[..., None],
        publish: Callable[[], None],
        after_save: Callable[[], None] = lambda: None,
    ) -> None:
        self._plan, self._learner, self._checkpoints = plan, learner, checkpoints
        self._metric, self._identity = metric, dict(identity)
        self._publish, self._after_save = publish, after_save
        self.ended = False
        self._progress = Progress(
            total_steps=plan.total,
            steps_per_epoch=plan.per_epoch,
            batch_size=images,
            schedule=schedule,
            write=write,
            last_checkpoint=checkpoints.last_good,
        )

    def run(self, step: int = 0, ranking: float | None = None) -> int:
        """Goes on from a step to the end, or to a signal, which saves.

        Args:
          step: finished steps.
          ranking: the metric of the last evaluation before it.

        Returns:
          the steps that are finished now.

        Raises:
          UserError: something that is trained or measured became NaN or infinite.
        """
        plan, progress, first = self._plan.delayed(self._learner.delay), self._progress, step
        if step >= plan.total:
            self._checkpoints.tidy()
        running, saved = collections.deque[Any](), time.monotonic()
        with (
            stopping.on_signals() as stop,
            distributed.bounded(),
            compilation.measured() as compiled,
        ):
            while step < plan.total:
                programs = compiled.programs
                with telling("Compiling the first step", when=step == first):
                    sums = self._learner.step(step)
                plan = self._plan.delayed(self._learner.delay)
                progress.total = plan.total
                step += 1
                progress.add(sums)
                running.append(sums)
                if compiled.programs > programs:
                    # Compiling is not training: leave the steps that compiled out of the rates.
                    jax.block_until_ready(sums)
                    progress.restart()
                if len(running) > STEPS_AHEAD:
                    jax.block_until_ready(running.popleft())

                stops, evaluates = stop(step), plan.evaluates(step)
                saves = stops or plan.saves(step, time.monotonic() - saved)
                if progress.steps >= plan.log_every or evaluates or saves:
                    progress.flush(step)
                if evaluates or saves:
                    state = self._finite_state(step)
                    if evaluates:
                        ranking = self._evaluate(step)
                    if saves:
                        self._save(step, state, ranking, ranked=evaluates)
                        saved = time.monotonic()
                    if evaluates and saves:
                        self._after_save()
                    progress.restart()
                if stops or self.ended:
                    break
            self._checkpoints.wait()
        if step < plan.total and not self.ended:
            _LOG.info("Stopped by a signal at step %d; the same command continues.", step)
        return step

    def _finite_state(self, step: int) -> Any:
        """The learner's state on the host."""
        state = snapshot.on_host(self._learner.state)
        name = snapshot.first_not_finite(state)
        if name is not None:
            self._progress.refuse(f"the state ({name})", step)
        return state

    def _evaluate(self, step: int) -> float:
        metrics = self._learner.evaluate()
        for name, value in metrics.items():
            if not np.isfinite(value):
                self._progress.refuse(f"the held-out {name}", step)
        self.ended = bool(self._learner.record(step, metrics))
        return metrics[self._metric]

    def _save(self, step: int, state: Any, ranking: float | None, *, ranked: bool) -> None:
        # The step determines the position of all data streams; it is written out for readers.
        position = {
            "step": step,
            "epoch": self._plan.epoch(step),
            "data_position": step * self._plan.batch_size,
            "validation": ranking,
            **self._learner.position,
            **self._identity,
        }
        self._publish()
        self._checkpoints.save(step, state, position, ranking if ranked else None)
