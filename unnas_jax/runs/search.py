"""The search phase: a supernet trained on a task, whose alphas become a discrete cell."""

import contextlib
import logging
import os
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import ml_collections
import numpy as np

from unnas_jax.analysis import pictures
from unnas_jax.config.schema import SearchConfig
from unnas_jax.config.sections import MethodConfig, Pace
from unnas_jax.core import distributed, sharding
from unnas_jax.core.errors import UserError
from unnas_jax.core.logs import telling
from unnas_jax.core.words import counted
from unnas_jax.data import Dataset, open_dataset
from unnas_jax.data.records import check_same, fingerprint
from unnas_jax.data.workers import refuse_unguarded_main
from unnas_jax.layers import onednn
from unnas_jax.learning import optim
from unnas_jax.methods import adaptive, stop_rules
from unnas_jax.methods import registry as methods
from unnas_jax.methods.base import SearchMethod, SearchState
from unnas_jax.runs import checkpoint, validation
from unnas_jax.runs import workdir as workdir_lib
from unnas_jax.runs.choosing import Choosing
from unnas_jax.runs.images import Images
from unnas_jax.runs.loop import Learner, Loop, Plan
from unnas_jax.runs.monitor import Monitor
from unnas_jax.runs.outputs import Outputs
from unnas_jax.runs.stages import Stages
from unnas_jax.runs.workdir import Workdir
from unnas_jax.tasks.base import Sums

_LOG = logging.getLogger("unnas_jax")


def _plan(config: SearchConfig, dataset: Dataset, images: int) -> Plan:
    """The plan of a search: an evaluation and a checkpoint end every epoch."""
    batch_size = config.train.batch_size
    per_epoch = images // batch_size
    if images == 0:
        raise UserError(
            f"config.dataset.name={dataset.name!r}: has one image to train on, and a search learns "
            "from two halves; give more images"
        )
    if per_epoch == 0:
        few = f"half of the dataset {dataset.name!r} has only {counted(images, 'image')}"
        if images == config.train.max_images:
            few = f"config.train.max_images={images} is less"
        raise UserError(
            f"config.train.batch_size={batch_size}: {few}; use a smaller batch or more images"
        )
    stages = methods.of_config(config).stages(MethodConfig.of(config), per_epoch)
    steps = sum(stage.steps for stage in stages)
    return Plan.of(Pace.of(config), per_epoch, steps, every_epochs=1)


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
      checkpoints: of the run, among them those of epochs to which it may go back.
    """

    def __init__(
        self,
        stages: Stages,
        method: SearchMethod,
        state: SearchState,
        step: int,
        images: Images,
        outputs: Outputs,
        monitor: Monitor,
        checkpoints: checkpoint.Checkpoints,
    ) -> None:
        self.method, self.state, self._first_step = method, state, step
        self._stages, self._images, self._outputs = stages, images, outputs
        self._monitor, self._last_b, self._checkpoints = monitor, None, checkpoints
        self._keep()
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
        return {"stage": setting.stage, "carried": setting.carried, **self._monitor.position}

    @property
    def delay(self) -> int:
        return self._monitor.delay

    def _keep(self) -> None:
        """Has the checkpoints kept to which the search may go back."""
        grows = adaptive.can_grow(self.method.config)
        rows = stop_rules.may_be_named(self._monitor.rows) if grows else []
        self._checkpoints.keep([row["step"] for row in rows])

    def _go_back(self, step: int, row: stop_rules.Row) -> None:
        """Goes on after `step` steps from the state of a row, with stronger regularisation."""
        self._monitor.go_back(step, row)
        self._keep()
        self.method = self._stages.at(self.position)
        state = self._checkpoints.restore_whole(row["step"], self.method.shapes())
        at = sharding.replicate(np.int32(step), self.method.setting.mesh)
        self.state, self._batches_b = state.replace(step=at), None

    def step(self, step: int) -> Mapping[str, Sums | None]:
        # In a step of its own, so that a run which was stopped before it decides the same.
        row = self._monitor.goes_back(self.method)
        if row is not None:
            self._go_back(step, row)
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
            telling("Compiling the step with other regularisation", when=row is not None),
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
            measured = self._monitor.measure(self.method, self.state, step, self._last_b)
            numbers = {**measured, **numbers, **self._returning()}
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
        self._keep()
        row, named = self._monitor.stops(self.method), None
        if row is not None:
            named = self._outputs.plan.epoch(row["step"])
            rule = self.method.options["stop"]
            _LOG.info("The rule %r stops the search: cells of epoch %g.", rule, named)
        last = step == self._outputs.plan.delayed(self.delay).total
        self._outputs.alphas(self.method, self.state, step, named, finished=last)
        return row is not None

    def _returning(self) -> dict[str, float]:
        """The regularisation of an epoch that has ended, and the epoch to which it goes back."""
        config = self.method.config
        if config.method.get("adapt", "none") == "none":
            return {}
        numbers = {"regularisation": adaptive.strength(config)}
        row = self._monitor.goes_back(self.method)
        if row is not None:
            numbers["returns_to"] = self._outputs.plan.epoch(row["step"])
            _LOG.info(
                "The eigenvalue has jumped: the search goes back to epoch %g, and on from there "
                "with %s %.3g.",
                numbers["returns_to"],
                config.method["adapt"],
                adaptive.strength(adaptive.grown(config)),
            )
        return numbers


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
        stages = Stages(MethodConfig.of(c), task, mesh, plan, optimizers)
        checkpoints = stack.enter_context(checkpoint.Checkpoints(workdir.checkpoints))
        restored = checkpoints.restore_by(lambda position: stages.at(position).shapes())
        state, position = restored or (stages.at({}).init(), {"step": 0, "validation": None})
        method = stages.at(position)
        check_same(workdir.name, position.get("data"), data, ("train",))
        step, ranking = int(position["step"]), position["validation"]
        monitor = Monitor(c.train.epochs, plan.per_epoch, position)
        total = plan.delayed(monitor.delay).total
        outputs = stack.enter_context(
            contextlib.closing(Outputs(workdir.path, given, plan, step, primary))
        )
        _LOG.info(
            "Searching on %s with %s: %d + %d images, %d steps of %d an epoch, %s (%s)%s.",
            dataset.name,
            task.name,
            len(images.half_a),
            len(images.half_b),
            total,
            plan.per_epoch,
            counted(mesh.size, "device"),
            jax.default_backend(),
            f", continuing at step {step}" if step else "",
        )
        onednn.tell(jax.default_backend(), jax.device_count())
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
            total_steps=total,
        )
        choosing = None
        if method.chooses:
            with distributed.all_or_none("candidates"):
                choosing = Choosing(workdir.path, method, plan.total, write=primary)
        elif not outputs.history.rows:  # At the start, or after a checkpoint was brought over.
            outputs.alphas(method, state, step)

        # The loop.
        learner = _Learner(stages, method, state, step, images, outputs, monitor, checkpoints)
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
        ended = monitor.stops(method) is not None
        ended = ended or loop.run(step, ranking) == plan.delayed(monitor.delay).total or loop.ended
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
