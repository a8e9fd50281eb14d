"""The diagnostics of a search after every epoch, and whether it stops there.

The rows are kept with every checkpoint: a run that goes on decides as an uninterrupted one.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unnas_jax.core.logs import telling
from unnas_jax.methods import diagnostics, stop_rules
from unnas_jax.methods.base import SearchMethod, SearchState

_LOG = logging.getLogger("unnas_jax")


class Monitor:
    """The diagnostics of a search.

    Args:
      epochs: of the whole search.
      rows: the rows up to the step from which the run goes on.

    Attributes:
      rows: one an epoch since the alphas move, see `stop_rules.Row`.
    """

    def __init__(self, epochs: int, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        self.epochs, self.rows = epochs, [dict(row) for row in rows]

    def named(self, method: SearchMethod) -> int | None:
        """The epoch whose cells are the result, counted from 0, if the method's rule stops."""
        rule = method.options.get("stop", "none")
        return None if rule == "none" else stop_rules.RULES[rule](self.rows, self.epochs)

    def measure(
        self, method: SearchMethod, state: SearchState, epoch: float, batch_b: Any
    ) -> dict[str, float]:
        """The numbers for the row `method` of metrics.jsonl.

        Args:
          method: in its stage.
          state: after some epochs.
          epoch: how many of the run; only whole ones make a row, by which a run is stopped.
          batch_b: the last batch of half B; None: the alphas do not move yet.
        """
        alphas = {name: np.asarray(value) for name, value in state.alphas.items()}
        mixing, cells = method.mixing(alphas), method.cells(alphas)
        numbers = diagnostics.of_weights(cells, mixing)
        every = method.options.get("curvature_every", 0)
        # The epoch that has just ended, counted from 0.
        whole, number = epoch == int(epoch), int(epoch) - 1
        due = every and whole and (number % every == 0 or epoch == self.epochs)
        curvature = None
        if due and batch_b is not None:
            first = all(row["eigenvalue"] is None for row in self.rows)
            with telling("Compiling the product of the Hessian in the alphas", when=first):
                curvature = method.curvature(state, batch_b)
        if curvature is not None:
            numbers["eigenvalue"] = curvature
            _LOG.info("Epoch %d: the largest eigenvalue in the alphas is %.4g.", epoch, curvature)
        if whole and batch_b is not None and (not self.rows or self.rows[-1]["epoch"] < number):
            order = stop_rules.ranking(mixing["normal"], method.operations()["normal"])
            self.rows.append(
                {
                    "epoch": number,
                    "skips": diagnostics.skips(cells),
                    "eigenvalue": curvature,
                    "ranking": order,
                }
            )
        return numbers
