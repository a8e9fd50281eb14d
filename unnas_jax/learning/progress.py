"""Progress of a run: a line and a row of metrics per interval, and an end at the first NaN."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax

from unnas_jax.core import logs
from unnas_jax.core.errors import UserError
from unnas_jax.learning import metrics
from unnas_jax.tasks import base
from unnas_jax.tasks.base import Sums

_LOG = logging.getLogger("unnas_jax")


class Progress:
    """Collects the sums of steps, on the device, and logs them when asked.

    Args:
      total_steps, steps_per_epoch: of the run.
      batch_size: images of a step's batch, for the rate.
      schedule: step -> learning rate, None where it is not known; None: it never is.
      write: receives the row: called as write("train", step, **values).
      last_checkpoint: the step of the newest complete checkpoint, for the message about a NaN.

    Attributes:
      total: `total_steps`, which a run may change.
      steps: that it took since the last line.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        steps_per_epoch: int,
        batch_size: int,
        schedule: Callable[[int], Any] | None,
        write: Callable[..., None],
        last_checkpoint: Callable[[], int | None],
    ) -> None:
        self.total, self._per_epoch, self._batch_size = total_steps, steps_per_epoch, batch_size
        self._schedule, self._write, self._last_checkpoint = schedule, write, last_checkpoint
        self._sums: dict[str, list[Sums]] = {}
        self.steps = 0
        self.restart()

    def add(self, sums: Mapping[str, Sums | None]) -> None:
        """Notes the sums of a step by what was trained (weights, alphas); None for what was not."""
        self.steps += 1
        self._timed_steps += 1
        for name, value in sums.items():
            if value is not None:
                self._sums.setdefault(name, []).append(value)
                self._timed_images += self._batch_size

    def restart(self) -> None:
        """Starts the clock again, after a pause that is not training."""
        self._start, self._timed_steps, self._timed_images = time.monotonic(), 0, 0

    def flush(self, step: int) -> None:
        """Fetches the sums, writes the row and the line, and forgets them.

        Raises:
          UserError: a loss was NaN or infinite; names the step.
        """
        if not self.steps:
            return
        # device_get sorts the keys of a dict; the line keeps the order in which they were given.
        fetched = {name: jax.device_get(sums) for name, sums in self._sums.items()}
        for name, sums in fetched.items():
            position = metrics.first_not_finite(sums)
            if position is not None:
                self.refuse(f"the loss ({name})", step - len(sums) + position + 1)
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = self._timed_images / seconds
        left = (self.total - step) * seconds / max(self._timed_steps, 1)
        row: dict[str, float] = {}
        line = f"step {step}/{self.total}  epoch {step / self._per_epoch:.2f}"
        for name, sums in fetched.items():
            means = base.means(base.total(sums))
            prefix = "" if name == "weights" else f"{name}_"
            row |= {f"{prefix}{key}": value for key, value in means.items()}
            line += f"  {name}: loss {means['loss']:.4f}, {100 * means['accuracy']:.2f}%"
        learning_rate = self._schedule(step - 1) if self._schedule else None
        if learning_rate is not None:
            row["learning_rate"] = float(learning_rate)
            line += f"  lr {float(learning_rate):.4g}"
        row |= {"images_per_second": rate, "seconds_left": left}
        _LOG.info(
            "%s  %.1f images/s (%.1f a device)  %s left",
            line,
            rate,
            rate / jax.device_count(),
            logs.duration(left),
        )
        self._write("train", step, **row)
        self._sums, self.steps = {}, 0
        self.restart()

    def refuse(self, what: str, step: int) -> NoReturn:
        """Ends a run in which something is no longer finite; raises `UserError`."""
        saved = self._last_checkpoint()
        kept = "there is no checkpoint yet" if saved is None else f"the one of step {saved} is kept"
        raise UserError(
            f"{what} became NaN or infinite at step {step}; the last good checkpoint: {kept}; "
            "lower the learning rate and start in a new workdir"
        )
