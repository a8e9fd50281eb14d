"""The search phase: a supernet trained on a task, whose alphas become a discrete cell."""

import contextlib
import itertools
import json
import logging
import os
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import ml_collections
from jax.sharding import Mesh

from unnas_jax.analysis import pictures
from unnas_jax.config.schema import SearchConfig
from unnas_jax.config.sections import MethodConfig, Pace
from unnas_jax.core import distributed, sharding
from unnas_jax.core.errors import UserError
from unnas_jax.core.logs import telling
from unnas_jax.data import Dataset, open_dataset
from unnas_jax.data.records import check_same, fingerprint
from unnas_jax.data.workers import refuse_unguarded_main
from unnas_jax.learning import optim
from unnas_jax.methods import registry as methods
from unnas_jax.methods.base import SearchMethod, SearchState, Setting, Stage
from unnas_jax.runs import checkpoint, snapshot, validation
from unnas_jax.runs import workdir as workdir_lib
from unnas_jax.runs.choosing import Choosing
from unnas_jax.runs.images import Images
from unnas_jax.runs.loop import Learner, Loop, Plan
from unnas_jax.runs.monitor import Monitor
from unnas_jax.runs.outputs import Outputs
from unnas_jax.runs.workdir import Workdir
from unnas_jax.tasks.base import Sums, Task

_LOG = logging.getLogger("unnas_jax")


def _plan(config: SearchConfig, dataset: Dataset, images: int) -> Plan:
    """The plan of a search: an evaluation and a checkpoint end every epoch."""
    batch_size = config.train.batch_size
    per_epoch = images // batch_size
    if per_epoch == 0:
        raise UserError(
            f"config.train.batch_size={batch_size}: half of the dataset {dataset.name!r} has only "
            f"{images} images; use a smaller batch"
        )
    stages = methods.of_config(config).stages(MethodConfig.of(config), per_epoch)
    steps = sum(stage.steps for stage in stages)
    return Plan.of(Pace.of(config), per_epoch, steps, every_epochs=1)


class _Stages:
    """The stages of a run, and the method in each of them.

    Args:
      config: of the methods.
      task: what the supernets learn.
      mesh: of the devices.
      plan: of the run.
      optimizers: see `search`.
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
        ends = itertools.accumulate(stage.steps for stage in self.stages)
        self._ends = [min(end, plan.total) for end in ends]
        self._last: tuple[str, SearchMethod] | None = None

    def at(self, position: Mapping[str, Any]) -> SearchMethod:
        """The method at the `stage` and with what it has `carried`, as a position holds them.

        A position without a stage, which older versions wrote, is in the first one. The last
        method made is kept.
        """
        stage, carried = position.get("stage", 0), position.get("carried")
        if stage not in range(len(self.stages)):
            raise ValueError(f"it is of stage {stage} of {len(self.stages)}")
        key = json.dumps([stage, carried])
        if self._last is None or self._last[0] != key:
            first = self._ends[stage - 1] if stage else 0
            setting = Setting(
                self._config,
                self._task,
                self._mesh,
                self._plan.per_epoch,
                stage,
                first,
                carried,
                self._optimizers,
            )
            self._last = key, self._method(setting)
        return self._last[1]

    def end(self, method: SearchMethod) -> int:
        """The steps of the run that are finished when a method's stage ends."""
        return self._ends[method.setting.stage]

    def after(self, method: SearchMethod, state: SearchState) -> SearchMethod:
        """The method of the next stage."""
        stage = method.setting.stage + 1
        # Through JSON, as if the run had been stopped here.
        carried = json.loads(json.dumps(method.finish(snapshot.on_host(state))))
        _LOG.info("Stage %d of %d: %s.", stage + 1, len(self.stages), self.stages[stage].name)
        return self.at({"stage": stage, "carried": carried})


class MethodLearner(Learner, Protocol):
    """A learner that trains the supernet of a search method."""

    @property
    def method(self) -> SearchMethod:
        """The method in its stage."""


def loop_of(
    plan: Plan,
    learner: MethodLearner,
    checkpoints: checkpoint.Checkpoints,
    data: Mapping[str, Any],
    write: Callable[..., None],
    publish: Callable[[], None],
    after_save: Callable[[], None] = lambda: None,
) -> Loop:
    """The loop that trains a method's supernet: see `Loop`; `data` is the dataset's fingerprint."""
    return Loop(
        plan,
        learner,
        checkpoints,
        metric=learner.method.task.metric,
        identity={"data": data},
        images=plan.batch_size,
        schedule=lambda step: learner.method.learning_rate(step),
        write=write,
        publish=publish,
        after_save=after_save,
    )


class _Learner:
    """A search as the loop sees it, whatever its method.

    Args:
      stages: of the run.
      method, state, step: where it goes on.
      images: what it learns from.
      outputs: the files.
      monitor: measures the diagnostics.
    """

    def __init__(
        self,
        stages: _Stages,
        method: SearchMethod,
        state: SearchState,
        step: int,
        images: Images,
        outputs: Outputs,
        monitor: Monitor,
    ) -> None:
        self.method, self.state, self._first_step = method, state, step
        self._stages, self._images, self._outputs = stages, images, outputs
        self._monitor, self._last_b = monitor, None
        self._blocks = contextlib.ExitStack()
        self._batches_a = self._blocks.enter_context(images.train(0, step))
        self._block_b = self._blocks.enter_context(contextlib.ExitStack())
        self._batches_b: Iterator[Any] | None = None

    def close(self) -> None:
        """Ends the streams of both halves."""
        self._blocks.close()

    @property
    def position(self) -> dict[str, Any]:
        setting = self.method.setting
        rows = self._monitor.rows
        return {"stage": setting.stage, "carried": setting.carried, "measured": rows}

    def step(self, step: int) -> Mapping[str, Sums | None]:
        if step == self._stages.end(self.method):
            self.method = self._stages.after(self.method, self.state)
            self.state, self._batches_b = self.method.init(), None
        if self._batches_b is None:
            steps = range(step, self._stages.end(self.method))
            needed = [k for k in steps if self.method.needs_b(k)]
            self._block_b.close()
            batches = self._images.train(1, self._first_step, needed)
            self._batches_b = self._block_b.enter_context(batches)
        batch_a, needs_b = next(self._batches_a), self.method.needs_b(step)
        batch_b = self._last_b = next(self._batches_b) if needs_b else None
        first = step > self.method.setting.first_step and needs_b
        first = first and not self.method.needs_b(step - 1)
        with (
            telling("Compiling the alphas' step", when=first),
            jax.transfer_guard("disallow"),
        ):
            self.state, sums = self.method.step(self.state, batch_a, batch_b)
        return sums

    def evaluate(self) -> dict[str, float]:
        sums = [
            self.method.evaluate(self.state, batch, number)
            for number, batch in enumerate(self._images.evaluation())
        ]
        return self._images.task.summarize(jax.device_get(sums))

    def record(self, step: int, metrics: Mapping[str, float]) -> bool:
        self._outputs.metrics("validation", step, **metrics)
        epoch = self._outputs.plan.epoch(step)
        numbers = dict(self.method.record(self.state))
        if not self.method.chooses:
            measured = self._monitor.measure(self.method, self.state, epoch, self._last_b)
            numbers = {**measured, **numbers}
        if numbers:
            self._outputs.metrics("method", step, **numbers)
        _LOG.info(
            "Epoch %.3g, half %s with %s: %s.",
            epoch,
            "A" if self._images.task.memorises else "B",
            "random cells" if self.method.chooses else "running statistics",
            ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()),
        )
        if self.method.chooses:
            return False
        named = self._monitor.named(self.method)
        if named is not None:
            rule = self.method.options["stop"]
            _LOG.info("The rule %r stops the search: cells of epoch %d.", rule, named + 1)
        self._outputs.alphas(self.method, self.state, step, named)
        return named is not None


def search(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    optimizers: Mapping[str, optim.Optimizer] = types.MappingProxyType({}),
) -> SearchState:
    """Runs a search to its end, or continues it, and leaves its files in `workdir`.

    Args:
      config: see `unnas_jax.config.schema.search`.
      workdir: a directory or an address gs://BUCKET/NAME; files as docs/files.md lists them.
      optimizers: objects that replace the optimizers named in the sections `weights` and `alphas`.

    Returns:
      The final state, or that at which a signal stopped the run.

    Raises:
      UserError: bad input, or something became NaN or infinite.
      Interruption: what the run needs failed; the same call continues it.
    """
    refuse_unguarded_main()
    optim.check_objects(optimizers, ("weights", "alphas"))
    config = optim.with_objects(config, optimizers)
    validation.validate(config, optimizers)
    with workdir_lib.opened(workdir, write=distributed.is_primary()) as place:
        return _search(config.to_dict(), place, optimizers)


def _search(
    given: dict[str, Any], workdir: Workdir, optimizers: Mapping[str, optim.Optimizer]
) -> SearchState:
    c = SearchConfig.of(given)
    # Everything that can be wrong, before anything long begins.
    mesh = sharding.data_mesh()
    sharding.check_batch_size("train.batch_size", c.train.batch_size, mesh)
    sharding.check_batch_size("eval.batch_size", c.eval.batch_size, mesh)
    primary = distributed.is_primary()
    with contextlib.ExitStack() as stack:
        with distributed.all_or_none("workdir"):
            workdir_lib.check_apart(workdir, c.dataset)
            if primary:
                stack.enter_context(workdir_lib.alone(workdir))
            workdir_lib.claim(workdir, given, write=primary)

        # Data.
        with distributed.all_or_none("data"):
            workdir_lib.check_shared(workdir)
            dataset = open_dataset(c.dataset)
        images, data = Images.of(c, dataset, mesh), fingerprint(dataset)
        task = images.task
        plan = _plan(c, dataset, len(images.half_a))

        # Steps, state, and where it continues.
        stages = _Stages(MethodConfig.of(c), task, mesh, plan, optimizers)
        checkpoints = stack.enter_context(checkpoint.Checkpoints(workdir.checkpoints))
        restored = checkpoints.restore_by(lambda position: stages.at(position).shapes())
        state, position = restored or (stages.at({}).init(), {"step": 0, "validation": None})
        method = stages.at(position)
        check_same(workdir.name, position.get("data"), data, ("train",))
        step, ranking = int(position["step"]), position["validation"]
        outputs = stack.enter_context(
            contextlib.closing(Outputs(workdir.path, given, plan, step, primary))
        )
        _LOG.info(
            "Searching on %s with %s: %d + %d images, %d steps of %d an epoch, %d devices (%s)%s.",
            dataset.name,
            task.name,
            len(images.half_a),
            len(images.half_b),
            plan.total,
            plan.per_epoch,
            mesh.size,
            jax.default_backend(),
            f", continuing at step {step}" if step else "",
        )
        if primary:
            pictures.tell(f"unnas-jax report {workdir.name}")
        outputs.metrics(
            "start",
            step,
            num_classes=task.num_classes,
            train_images=len(images.half_a),
            validation_images=len(images.held_out),
            devices=mesh.size,
            backend=jax.default_backend(),
            total_steps=plan.total,
        )
        choosing = None
        if method.chooses:
            with distributed.all_or_none("candidates"):
                choosing = Choosing(workdir.path, method, plan.total, write=primary)
        elif not outputs.history.rows:  # At the start, or after a checkpoint was brought over.
            outputs.alphas(method, state, step)

        # The loop.
        monitor = Monitor(c.train.epochs, position.get("measured", ()))
        learner = _Learner(stages, method, state, step, images, outputs, monitor)
        stack.enter_context(contextlib.closing(learner))
        del state  # A step gives its memory to the next one's.
        loop = loop_of(
            plan,
            learner,
            checkpoints,
            data,
            outputs.metrics,
            workdir.publish,
            after_save=lambda: outputs.pictures(final=False),
        )
        ended = monitor.named(method) is not None or loop.run(step, ranking) == plan.total
        ended |= loop.ended
        if ended and choosing is not None:
            chooser, state = learner.method, learner.state

            def judge(cells: Sequence[Any]) -> list[dict[str, float]]:
                return chooser.judge(state, cells, images)

            ended = choosing.run(judge, workdir.publish)
            if ended:
                outputs.chosen(chooser, choosing)
        if ended:
            outputs.pictures(final=True)
            shown = "report.html" if pictures.available() else "genotype.json"
            _LOG.info("Finished. See %s", os.path.join(workdir.name, shown))
            for words in outputs.warnings:
                _LOG.warning("But %s.", words)
        return learner.state
