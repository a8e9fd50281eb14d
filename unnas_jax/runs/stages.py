"""The search method of a run in each of its stages, and after it went back."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from unnas_jax.config.sections import MethodConfig
from unnas_jax.learning import optim
from unnas_jax.methods import adaptive
from unnas_jax.methods import registry as methods
from unnas_jax.methods.base import SearchMethod, SearchState, Setting, Stage
from unnas_jax.runs import snapshot
from unnas_jax.runs.loop import Plan
from unnas_jax.tasks.base import Task

_LOG = logging.getLogger("unnas_jax")


class Stages:
    """The stages of a run, and the method in each of them.

    Args:
      config: of the methods.
      task: what the supernets learn.
      mesh: of the devices.
      plan: of the run.
      optimizers: see `unnas_jax.runs.search.search`.
    """

    def __init__(
        self,
        config: MethodConfig,
        task: Task,
        mesh: Mesh,
        plan: Plan,
        optimizers: Mapping[str, optim.Optimizer],
    ) -> None:
        self._config, self._task, self._mesh, self._plan = config, task, mesh, plan
        self._optimizers = optimizers
        self._method = methods.of_config(config)
        self.stages: Sequence[Stage] = self._method.stages(config, plan.per_epoch)
        self._last: tuple[str, SearchMethod] | None = None

    def at(self, position: Mapping[str, Any]) -> SearchMethod:
        """The method where a position says: its `stage`, what it has `carried`, and its `returns`.

        A position without them, which older versions wrote, is in the first stage and never went
        back. The last method made is kept.
        """
        stage, carried = position.get("stage", 0), position.get("carried")
        if stage not in range(len(self.stages)):
            raise ValueError(f"it is of stage {stage} of {len(self.stages)}")
        returns = position.get("returns", {"count": 0, "delay": 0})
        key = json.dumps([stage, carried, returns])
        if self._last is None or self._last[0] != key:
            config = self._config
            for _ in range(returns["count"]):
                config = adaptive.grown(config)
            first = sum(earlier.steps for earlier in self.stages[:stage])
            setting = Setting(
                config,
                self._task,
                self._mesh,
                self._plan.per_epoch,
                stage,
                first + returns["delay"],
                carried,
                self._optimizers,
            )
            self._last = key, self._method(setting)
        return self._last[1]

    def end(self, method: SearchMethod) -> int:
        """The steps of the run that are finished when a method's stage ends."""
        setting = method.setting
        steps = self.stages[setting.stage].steps
        return min(setting.first_step + steps, self._plan.most)

    def after(self, method: SearchMethod, state: SearchState) -> SearchMethod:
        """The method of the next stage."""
        stage = method.setting.stage + 1
        # Through JSON, as if the run had been stopped here.
        carried = json.loads(json.dumps(method.finish(snapshot.on_host(state))))
        _LOG.info("Stage %d of %d: %s.", stage + 1, len(self.stages), self.stages[stage].name)
        return self.at({"stage": stage, "carried": carried})
