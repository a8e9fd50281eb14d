"""What a selection by perturbation does between its checkpoints: decides, trains on, measures."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.core.logs import duration, telling
from unnas_jax.methods import draws
from unnas_jax.methods.base import SearchState
from unnas_jax.methods.compiled import Compiled
from unnas_jax.methods.darts import Darts
from unnas_jax.methods.draws import Given
from unnas_jax.methods.projection import Omission, Projection
from unnas_jax.tasks.base import Batch, Sums, evaluated

_LOG = logging.getLogger("unnas_jax")

COLUMNS = ("decision", "cell", "node", "input", "without", "score", "result")
"""The columns of a selection's table."""


class Scores:
    """The scores measured for the next decision, kept in a file: a run that was killed reads them.

    Args:
      path: of the file.
      keep: whether they are read and written: by a run of one process.
    """

    def __init__(self, path: str, keep: bool) -> None:
        self._path, self._keep = path, keep
        self._known: dict[str, float] = {}
        if keep and os.path.exists(path):
            with contextlib.suppress(OSError, ValueError, TypeError):
                found = files.read_json(path)
                self._known = {str(key): float(value) for key, value in found.items()}

    def of(self, decision: int, without: Omission, measure: Callable[[], float]) -> float:
        """The score without something, measured if it is not known."""
        key = " ".join(map(str, (decision, *without)))
        if key not in self._known:
            self._known = {k: v for k, v in self._known.items() if k.startswith(f"{decision} ")}
            self._known[key] = measure()
            if self._keep:
                files.write_json(self._path, self._known)
        return self._known[key]


class _Clock:
    """Measures how long passes over the held-out images, and steps, take."""

    def __init__(self) -> None:
        self._spent, self._count = {"pass": 0.0, "step": 0.0}, {"pass": 0, "step": 0}

    def add(self, what: str, seconds: float, count: int = 1) -> None:
        """Notes how long something took."""
        self._spent[what] += seconds
        self._count[what] += count

    def left(self, passes: int, steps: int) -> str:
        """The time that passes and steps will take, in words."""
        if not self._count["pass"] or (steps and not self._count["step"]):
            return "the time left is known after the first steps"
        each = {what: self._spent[what] / max(self._count[what], 1) for what in self._spent}
        return f"{duration(passes * each['pass'] + steps * each['step'])} left"


class Selecting:
    """A selection as the loop sees it.

    Args:
      method: of the search, for the training between decisions.
      state: where it goes on.
      projection: what is decided until there.
      rows: of the table until there.
      every: steps between decisions.
      scores: what was measured before a run was killed.
      batches: pairs of batches, of half A and of half B.
      held_out: makes an iterator over the batches that scores are measured on.
      write: receives rows of metrics.
    """

    delay = 0  # It never goes back.

    def __init__(
        self,
        method: Darts,
        state: SearchState,
        projection: Projection,
        rows: Sequence[Any],
        every: int,
        scores: Scores,
        batches: Iterator[tuple[Any, Any]],
        held_out: Callable[[], Iterator[Any]],
        write: Callable[..., None],
    ) -> None:
        self.method, self.state, self.projection = method, state, projection
        self.rows = [list(row) for row in rows]
        self._every, self._scores, self._batches, self._held_out = every, scores, batches, held_out
        self._write, self._clock, self._given = write, _Clock(), None
        self._since: float | None = None
        self._timed, self._compiled = 0, False
        self._measured = Compiled(method, _sums)

    @property
    def position(self) -> dict[str, Any]:
        """What is decided, the table, and the stage of the search."""
        setting = self.method.setting
        return {
            "projection": self.projection.as_json(),
            "rows": self.rows,
            "stage": setting.stage,
            "carried": setting.carried,
        }

    @property
    def _steps_left(self) -> int:
        return self._every * max(self.projection.decisions - 1 - self.projection.decided, 0)

    def step(self, step: int) -> Mapping[str, Sums | None]:
        """A step of the alphas and one of the weights; where one is due, a decision before."""
        if step == self._every * self.projection.decided:
            self.decide()
        if self._given is None:
            self._given = self.method.placed(self.projection.given())
        batch_a, batch_b = next(self._batches)
        with jax.transfer_guard("disallow"):
            self.state, of_b = self.method.alpha_step(self.state, batch_b, batch_a, self._given)
            self.state, of_a = self.method.weight_step(self.state, batch_a, self._given)
        if self._since is None:  # Behind the step that compiled.
            jax.block_until_ready(of_a)
            self._since = time.monotonic()
            self._timed = step + 1
        return {"weights": of_a, "alpha": of_b}

    def decide(self) -> None:
        """Makes the next decision of every kind of cell."""
        number, left = self.projection.decided + 1, self.projection.decisions
        passes, labels = self.projection.passes(), self.projection.space.LABELS

        def measure(given: Given, without: Omission) -> float:
            nonlocal passes
            score = self._scores.of(number - 1, without, lambda: self._score(given))
            passes -= 1
            source, node = self.projection.edges[without.edge]
            what = f"{without.operation or 'any operation'} from state {source} to node {node}"
            _LOG.info(
                "Decision %d of %d, %s: without %s the %s is %.4f; %s.",
                number,
                left,
                labels[without.kind],
                what,
                self.method.task.metric,
                score,
                self._clock.left(passes, self._steps_left),
            )
            return score

        for kind, measured, result in self.projection.decide(measure):
            _LOG.info("Decision %d of %d, %s: %s.", number, left, labels[kind], result)
            for omitted, score in measured:
                source, node = self.projection.edges[omitted.edge]
                row = (number, kind, node, source, omitted.operation or "all", score, result)
                self.rows.append(list(row))
        self._given = None

    def evaluate(self) -> dict[str, float]:
        """The metrics with nothing left out."""
        if self._since is not None:
            seconds = time.monotonic() - self._since
            steps = self._every * self.projection.decided - self._timed
            if steps > 0:
                self._clock.add("step", seconds, steps)
            self._since = None
        return self._metrics(self.projection.given())

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes a row."""
        self._write("validation", step, **metrics)

    # Scores.

    def _score(self, given: Given) -> float:
        return float(self._metrics(given)[self.method.task.metric])

    def _metrics(self, given: Given) -> dict[str, float]:
        start, placed = time.monotonic(), self.method.placed(given)
        with telling("Measuring a score", after=30.0):
            sums = [
                self._measured(self.state, placed, batch, self.method.placed(np.int32(number)))
                for number, batch in enumerate(self._held_out())
            ]
            found: dict[str, float] = self.method.task.summarize(jax.device_get(sums))
        for name, value in found.items():
            if not np.isfinite(value):
                raise UserError(
                    f"the held-out {name} became NaN or infinite; give a lower --learning-rate and "
                    "another --out"
                )
        if self._compiled:  # The first pass compiles.
            self._clock.add("pass", time.monotonic() - start)
        self._compiled = True
        return found


def _sums(method: Darts, state: SearchState, given: Given, batch: Batch, number: jax.Array) -> Sums:
    """The sums over a batch of held-out examples, with its own batch-norm statistics.

    Running statistics would be those of the network with everything. They stay as they are.
    """
    key = method.key(draws.EVALUATION, number)
    examples = method.task.examples(key, batch, train=False)
    weights = method.mix_in_evaluation(state.alphas, state.step)
    outputs, _ = method.mixed.apply(
        {"params": state.params, "batch_stats": state.batch_stats},
        examples.inputs,
        given.into(weights, draws.EVALUATION),
        train=True,
        mutable=["batch_stats"],
        rngs={"noise": method.noise_key(draws.EVALUATION, number)},
    )
    return evaluated(method.task, outputs, examples)
