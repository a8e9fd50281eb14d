"""The files of a search that grow with it: metrics, alphas, genotype, pictures, report."""

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from unnas_jax.analysis import choice, pictures, results, verdict
from unnas_jax.analysis.history import Alphas, Row
from unnas_jax.config.schema import SearchConfig
from unnas_jax.core import files
from unnas_jax.learning import metrics, trackers
from unnas_jax.methods.base import SearchMethod, SearchState
from unnas_jax.runs.choosing import Choosing
from unnas_jax.runs.loop import Plan
from unnas_jax.runs.versions import versions
from unnas_jax.spaces import mixed

_LOG = logging.getLogger("unnas_jax")


class Outputs:
    """The files of a search that grow with it: metrics, alphas, genotype, pictures.

    Only the process that writes does so; in the others every method does nothing.
    """

    def __init__(
        self, workdir: str, given: Mapping[str, Any], plan: Plan, step: int, primary: bool
    ) -> None:
        self.config = SearchConfig.of(given)
        self.workdir, self.plan, self.primary = workdir, plan, primary
        self.history = Alphas(())
        self.next_drawing = 0.0
        self.log = None
        if primary:
            tracking = trackers.started(self.config.trackers, workdir, given, step)
            self.log = metrics.MetricsLog(workdir, step, tracking)
        self.facts: dict[str, Any] = {}
        self.validation: dict[str, Any] = {}
        self.warnings: list[str] = []
        if primary and step:
            self.history = results.alphas_until(os.path.join(workdir, "alphas.npz"), step)

    def metrics(self, kind: str, step: int, **values: Any) -> None:
        """Writes a row of metrics."""
        if kind == "start":
            self.facts = values
        elif kind == "validation":
            self.validation = values
        if self.log:
            self.log.write(kind, step, epoch=self.plan.epoch(step), **values)

    def alphas(
        self,
        method: SearchMethod,
        state: SearchState,
        step: int,
        named: float | None = None,
        *,
        finished: bool = False,
    ) -> None:
        """Writes the alphas' history and the genotype they stand for now.

        Or that after `named` epochs, with which the search ends.
        """
        if not self.primary:
            return
        alphas = {name: np.asarray(value) for name, value in state.alphas.items()}
        mixing, stage = method.mixing(alphas), method.setting.stage
        epoch = self.plan.epoch(step)
        self.history = self.history.with_row(Row(step, epoch, stage, alphas, mixing))
        with files.replacing(os.path.join(self.workdir, "alphas.npz"), "wb") as file:
            np.savez_compressed(file, **self.history.columns())
        if named is not None:
            row = self.history.at(named)
            alphas, mixing = dict(row.alphas), dict(row.mixing)
        cells, operations = method.cells(alphas), method.operations()
        space = mixed.of_config(method.config)
        self.warnings = verdict.of_alphas(
            self.history.mixing, cells, self.config.search.arch_start_epoch, operations, space
        )
        self.warnings += self._of_training()
        provenance = {
            **self._provenance(method, step),
            "finished": finished or named is not None,
            **({} if named is None else {"stopped": {"of_epoch": int(named)}}),
        }
        document = space.document(cells, mixing, provenance, operations)
        files.write_json(os.path.join(self.workdir, "genotype.json"), document)

    def chosen(self, method: SearchMethod, choosing: Choosing) -> None:
        """Writes the genotype that was the best of the candidates."""
        if not self.primary:
            return
        best, self.warnings = choosing.best(), self._of_training()
        criterion = str(method.options.get("criterion", "merit"))
        document = {
            **method.document(choosing.cells[best["cell"]]),
            **self._provenance(method, self.plan.total),
            "finished": True,
            "cell": best["cell"],
            "candidates": choice.summary(choosing.rows(), criterion),
        }
        files.write_json(os.path.join(self.workdir, "genotype.json"), document)
        words = choice.described(best)
        _LOG.info("The best of %d cells, %s: %s", len(choosing.cells), words, best["cell"])

    def _provenance(self, method: SearchMethod, step: int) -> dict[str, Any]:
        """Where the cells of genotype.json come from."""
        return {
            "dataset": self.config.dataset.name,
            "task": self.config.task.name,
            "method": method.name,
            "seed": self.config.seed,
            "step": step,
            "epoch": self.plan.epoch(step),
            "warnings": self.warnings,
            "versions": versions(),
        }

    def _of_training(self) -> list[str]:
        if not self.validation:
            return []
        return verdict.of_training(
            [self.validation], self.facts["num_classes"], self.facts["validation_images"]
        )

    def pictures(self, *, final: bool) -> None:
        """Redraws the pictures and the report; before the end only as long as it costs 5%."""
        now = time.monotonic()
        if not self.primary or not (final or now >= self.next_drawing):
            return
        pictures.write_report(self.workdir)
        self.next_drawing = now + 20 * (time.monotonic() - now)

    def close(self) -> None:
        """Closes the metrics' files."""
        if self.log:
            self.log.close()
