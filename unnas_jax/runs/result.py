"""`result.json`, the results of a training so far: its content, and when it may be written."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unnas_jax.analysis import result_files, verdict
from unnas_jax.config.schema import TrainConfig
from unnas_jax.core import buckets, files
from unnas_jax.core.errors import UserError
from unnas_jax.data import Dataset
from unnas_jax.runs.loop import Plan
from unnas_jax.runs.workdir import Workdir
from unnas_jax.spaces.registry import Cells, Network
from unnas_jax.tasks.base import Task

_LOG = logging.getLogger("unnas_jax")


def facts_of(
    config: TrainConfig,
    dataset: Dataset,
    cells: Cells,
    document: Mapping[str, Any],
    network: Network,
) -> dict[str, Any]:
    """What `result.json` says about a training before it begins."""
    searched = {name: document.get(name) for name in ("dataset", "task")}
    return {
        "schema": result_files.SCHEMA,
        "experiment": "train",
        "dataset": dataset.name,
        "task": config.task.name,
        "space": config.network.space,
        "genotype": config.network.genotype,
        "genotype_source": searched if all(searched.values()) else None,
        "cells_used": cells.as_dict(),
        "width": network.width,
        "cells": network.cells,
    }


def _statistics(values: Sequence[Mapping[str, float]], metric: str) -> dict[str, Any]:
    """The metric of every seed, its mean and (unbiased) standard deviation, and the losses."""
    numbers = [value[metric] for value in values]
    return {
        "metric": metric,
        "values": numbers,
        "mean": float(np.mean(numbers)),
        "std": float(np.std(numbers, ddof=1)) if len(numbers) > 1 else 0.0,
        "loss": [value["loss"] for value in values],
    }


class Result:
    """The content of `result.json`, written whenever the networks are evaluated.

    Args:
      workdir: of the run.
      facts: the part of the content that is known from the beginning.
      task: what is learned.
      plan: of the run.
      write: whether this process writes.
      names: of the classes.
    """

    def __init__(
        self,
        workdir: Workdir,
        facts: Mapping[str, Any],
        task: Task,
        plan: Plan,
        write: bool,
        names: Sequence[str] = (),
    ) -> None:
        self._names = tuple(names)
        self._workdir, self.facts, self._task, self._plan = workdir, facts, task, plan
        self._write = write
        self._path = os.path.join(workdir.path, "result.json")

    @property
    def total(self) -> int:
        """The steps of the run."""
        return self._plan.total

    def read(self) -> dict[str, Any]:
        """The content of the file; empty if there is none."""
        result: dict[str, Any] = files.read_json(self._path) if os.path.exists(self._path) else {}
        return result

    def of(
        self,
        values: list[dict[str, float]],
        step: int,
        images: int,
        *,
        last: bool,
        confusion: Sequence[np.ndarray] = (),
    ) -> dict[str, Any]:
        """The content for the metrics of every seed on so many images at a step; logs them.

        `confusion` says for every seed how often class i was answered as j; it may be empty.

        After the last evaluation of a run, warnings are logged, too.
        """
        metric, classes = self._task.metric, self._task.num_classes
        result = {
            **self.facts,
            **_statistics(values, metric),
            **self._by_class(values, confusion),
            "chance": verdict.chance(values[0], classes),
            "warnings": verdict.of_training(values, classes, images),
            "step": step,
            "epoch": self._plan.epoch(step),
            "finished": step == self._plan.total,
        }
        _LOG.info(
            "Epoch %.3g, %d images %s: %s %.2f%% +- %.2f (%s).",
            result["epoch"],
            images,
            "trained on" if self._task.memorises else "held out",
            metric,
            100 * result["mean"],
            100 * result["std"],
            ", ".join(f"{100 * number:.2f}" for number in result["values"]),
        )
        for words in result["warnings"] if last else ():
            _LOG.warning("But %s.", words)
        return result

    def _by_class(
        self, values: Sequence[Mapping[str, float]], confusion: Sequence[np.ndarray]
    ) -> dict[str, Any]:
        """Top-5 accuracy, the share of every class (means of the seeds), and the confusion."""
        found: dict[str, Any] = {}
        if "top5" in values[0]:
            found["top5"] = [value["top5"] for value in values]
        if not confusion:
            return found
        names = self._names or tuple(map(str, range(len(confusion[0]))))
        shares = [self._task.by_class(each) for each in confusion]
        # NaN for a class that does not occur, which JSON does not have.
        means = [
            None if np.isnan(of_class).all() else float(np.nanmean(of_class))
            for of_class in np.transpose([share for _, share in shares])
        ]
        of = {"names": list(names), "metric": shares[0][0], "values": means}
        return {**found, "by_class": {**of, "confusion": np.sum(confusion, axis=0).tolist()}}

    def write(self, result: Mapping[str, Any]) -> None:
        """Writes a result of the run that trains."""
        if self._write:
            files.write_json(self._path, result)

    def add(self, result: Mapping[str, Any]) -> None:
        """Writes a result of a run that only evaluates, unless there is a newer one."""
        if not self._write:
            return
        try:
            there = self._newest()
        except (ValueError, TypeError):
            there = -1  # Damaged.
        if there > result["step"]:
            _LOG.warning(
                "%s is of step %d, so the result of step %d does not replace it.",
                os.path.join(self._workdir.name, "result.json"),
                there,
                result["step"],
            )
            return
        try:
            files.write_json(self._path, result)
            self._workdir.publish()
        except (OSError, UserError) as error:
            _LOG.warning("The result is not written: %s", error)

    def _newest(self) -> int:
        """The step of the result that is there now, -1 if there is none."""
        if buckets.is_address(self._workdir.name):
            # The copy here is as old as this process.
            remote = buckets.open_path("workdir", self._workdir.name) / "result.json"
            return int(json.loads(remote.read_text())["step"]) if remote.exists() else -1
        return int(self.read().get("step", -1))
