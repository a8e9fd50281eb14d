"""The diagnostics of a search after every epoch, and whether it ends or goes back there.

What is decided is kept with every checkpoint: a run that goes on decides as an uninterrupted one.
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from unnas_jax.core.logs import telling
from unnas_jax.methods import adaptive, diagnostics, stop_rules
from unnas_jax.methods.base import SearchMethod, SearchState
from unnas_jax.methods.stop_rules import Row
from unnas_jax.spaces import mixed

_LOG = logging.getLogger("unnas_jax")


class Monitor:
    """The diagnostics of a search.

    Args:
      epochs: of the whole search.
      per_epoch: steps of an epoch.
      position: where the run goes on; empty at the start.

    Attributes:
      rows: one an epoch since the alphas move, see `stop_rules.Row`; without those behind an epoch
        to which the search went back.
      returns: how often it went back.
      delay: by how many steps it is later than planned, because it went back: after `step` finished
        steps the schedules are in epoch (step - delay) / per_epoch.
    """

    def __init__(self, epochs: int, per_epoch: int, position: Mapping[str, Any]) -> None:
        self.epochs, self.per_epoch = epochs, per_epoch
        back = position.get("returns", {"count": 0, "delay": 0})
        self.returns, self.delay = int(back["count"]), int(back["delay"])
        # Older versions wrote no `step`, and never went back.
        self.rows: list[dict[str, Any]] = [
            {"step": (row["epoch"] + 1) * per_epoch, **row} for row in position.get("measured", ())
        ]

    @property
    def position(self) -> dict[str, Any]:
        """What it goes on from, as JSON."""
        back = {"count": self.returns, "delay": self.delay}
        return {"measured": self.rows, "returns": back}

    def _named(self, rule: str) -> Row | None:
        named = stop_rules.RULES[rule](self.rows, self.epochs)
        if named is None:
            return None
        return next(row for row in self.rows if row["epoch"] == named)

    def stops(self, method: SearchMethod) -> Row | None:
        """The row of the epoch whose cells are the result, if the method's rule ends the search."""
        rule = method.options.get("stop", "none")
        return None if rule == "none" else self._named(rule)

    def goes_back(self, method: SearchMethod) -> Row | None:
        """The row of the epoch to which the search goes back, if it does so now."""
        if not adaptive.can_grow(method.config):
            return None
        return self._named("eigenvalue")

    def go_back(self, step: int, row: Row) -> None:
        """Notes that the search goes on after `step` steps from the state of a row."""
        self.returns += 1
        self.delay = step - (row["epoch"] + 1) * self.per_epoch
        self.rows = [other for other in self.rows if other["epoch"] <= row["epoch"]]

    def measure(
        self, method: SearchMethod, state: SearchState, step: int, batch_b: Any
    ) -> dict[str, float]:
        """The numbers for the row `method` of metrics.jsonl.

        Args:
          method: in its stage.
          state: after some steps.
          step: how many of the run; only whole epochs make a row, by which a run is stopped.
          batch_b: the last batch of half B; None: the alphas do not move yet.
        """
        alphas = {name: np.asarray(value) for name, value in state.alphas.items()}
        mixing, cells = method.mixing(alphas), method.cells(alphas)
        chosen = mixed.names(mixed.of_config(method.config), cells)
        kind = min(chosen)  # The one that counts; see `unnas_jax.spaces.mixed`.
        numbers = diagnostics.of_weights(chosen, mixing)
        every = method.options.get("curvature_every", 0)
        whole, done = step % self.per_epoch == 0, (step - self.delay) // self.per_epoch
        number = done - 1  # The epoch that has just ended, counted from 0.
        due = every and whole and (number % every == 0 or done == self.epochs)
        curvature = None
        if due and batch_b is not None:
            first = all(row["eigenvalue"] is None for row in self.rows)
            with telling("Compiling the product of the Hessian in the alphas", when=first):
                curvature = method.curvature(state, batch_b)
        if curvature is not None:
            numbers["eigenvalue"] = curvature
            _LOG.info(
                "Epoch %d: the largest eigenvalue in the alphas is %.4g.",
                step // self.per_epoch,
                curvature,
            )
        if whole and batch_b is not None and (not self.rows or self.rows[-1]["epoch"] < number):
            order = stop_rules.ranking(mixing[kind], method.operations()[kind])
            self.rows.append(
                {
                    "epoch": number,
                    "step": step,
                    "skips": diagnostics.skips(chosen[kind]),
                    "eigenvalue": curvature,
                    "ranking": order,
                }
            )
        return numbers
