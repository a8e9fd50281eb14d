"""The end of a search that chooses: random cells are judged, and the best one is the result.

    candidates.jsonl    step, cell, merit and what else was found, a row as soon as it is known

Killed at any time, the same command goes on: every cell is judged as if it were the only one.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unnas_jax.analysis import choice
from unnas_jax.core import distributed, stopping
from unnas_jax.core.errors import UserError
from unnas_jax.core.journal import Journal
from unnas_jax.core.logs import duration, telling
from unnas_jax.methods.base import SearchMethod
from unnas_jax.spaces.registry import Cells

_LOG = logging.getLogger("unnas_jax")

CELLS_AT_ONCE = 16
"""The cells that are judged in one pass over the images."""

_PUBLISH_S = 60.0

Judge = Callable[[Sequence[Cells]], list[dict[str, float]]]


class Choosing:
    """Which candidates are judged, and which one is the best.

    Made before a run begins, by all of its processes, so that they agree on what is left.

    Args:
      workdir: a directory of this machine.
      method: whose candidates.
      step: the last one of the run, after which the weights are those that they share.
      write: whether this process keeps the rows.

    Raises:
      UserError: there are not so many candidates, or the file is damaged.
    """

    def __init__(self, workdir: str, method: SearchMethod, step: int, *, write: bool) -> None:
        self._step, self._write = step, write
        self.cells = {str(cell): cell for cell in method.candidates()}
        self._journal = Journal(os.path.join(workdir, choice.FILE), choice.ROW)
        self._found = {
            row["cell"]: row
            for row in self._journal.rows
            if row["step"] == step and row["cell"] in self.cells
        }

    @property
    def left(self) -> list[str]:
        """The texts of the cells that are not judged yet."""
        return [text for text in self.cells if text not in self._found]

    def best(self) -> Mapping[str, Any]:
        """The row of the largest merit; among equals that of the cell drawn first."""
        return max((self._found[text] for text in self.cells), key=lambda row: row["merit"])

    def rows(self) -> list[Mapping[str, Any]]:
        """The rows of all cells in the order in which they were drawn."""
        return [self._found[text] for text in self.cells]

    def run(self, judge: Judge, publish: Callable[[], None]) -> bool:
        """Judges what is left, and says how long it will take.

        Args:
          judge: see `SearchMethod.judge`.
          publish: see `Workdir.publish`.

        Returns:
          whether it came to the end; False if a signal asked it to stop.

        Raises:
          UserError: a merit is not finite.
        """
        left = self.left
        begun = published = time.monotonic()
        with stopping.on_signals() as stop, distributed.bounded():
            for first in range(0, len(left), CELLS_AT_ONCE):
                texts = left[first : first + CELLS_AT_ONCE]
                done = len(self.cells) - len(left) + first
                if stop(self._step + done + 1):  # A number that no step has asked with.
                    _LOG.info("Stopped by a signal; the same command continues.")
                    return False
                what = f"Judging cells {done + 1} to {done + len(texts)} of {len(self.cells)}"
                with telling(what, after=0.0 if first == 0 else 30.0):
                    found = judge([self.cells[text] for text in texts])
                for text, values in zip(texts, found, strict=True):
                    self._keep(text, values)
                now = time.monotonic()
                ahead = (now - begun) / (first + len(texts)) * (len(left) - first - len(texts))
                best = max(self._found.values(), key=lambda row: row["merit"])
                _LOG.info(
                    "%d of %d cells judged, the best %s, %s left.",
                    done + len(texts),
                    len(self.cells),
                    choice.described(best),
                    duration(ahead),
                )
                if now - published > _PUBLISH_S:
                    publish()
                    published = now
        return True

    def _keep(self, text: str, values: Mapping[str, float]) -> None:
        row = {"step": self._step, "cell": text, **values}
        try:
            choice.check(row)
        except ValueError as error:
            raise UserError(
                f"candidate {text}: {error}: the supernet's weights are of no use; lower "
                "config.weights.learning_rate and start anew"
            ) from error
        if self._write:
            self._journal.add(row)
        self._found[text] = row
