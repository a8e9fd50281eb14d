"""The search phase: a supernet trained on a task, whose alphas become a discrete cell."""

import contextlib
import importlib.metadata
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from unnas_jax import __version__
from unnas_jax.analysis import report, results, verdict
from unnas_jax.config import schema as config_lib
from unnas_jax.core import distributed, files, sharding
from unnas_jax.core.errors import UserError
from unnas_jax.core.logs import telling
from unnas_jax.data import Dataset, halves, open_dataset
from unnas_jax.data.inspection import check_images
from unnas_jax.data.pipeline import evaluation_sample
from unnas_jax.data.records import check_same, fingerprint
from unnas_jax.data.workers import refuse_unguarded_main
from unnas_jax.learning import metrics, optim
from unnas_jax.learning.feed import Feed
from unnas_jax.methods.bilevel import SearchState, Steps, build_steps
from unnas_jax.runs import checkpoint
from unnas_jax.runs import workdir as workdir_lib
from unnas_jax.runs.loop import Loop, Plan
from unnas_jax.runs.workdir import Workdir
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts import genotype as genotype_lib
from unnas_jax.tasks import registry
from unnas_jax.tasks.base import Sums, Task

_LOG = logging.getLogger("unnas_jax")

_COLUMNS = ("step", "epoch", "normal", "reduce")  # Of alphas.npz.


def _plan(config: Mapping[str, Any], dataset: Dataset, images: int) -> Plan:
    """When a search does what: an evaluation and a checkpoint end every epoch."""
    batch_size = config["train"]["batch_size"]
    per_epoch = images // batch_size
    if per_epoch == 0:
        raise UserError(
            f"config.train.batch_size={batch_size}: half of the dataset {dataset.name!r} has only "
            f"{images} images; use a smaller batch"
        )
    total = per_epoch * config["train"]["epochs"]
    if config["train"]["max_steps"] > 0:
        total = min(total, config["train"]["max_steps"])
    return Plan(
        total=total,
        per_epoch=per_epoch,
        batch_size=batch_size,
        log_every=config["log_every_steps"],
        save_every=config["checkpoint_every_steps"],
        evaluate_every=per_epoch,
    )


def _first_step(epoch: float, per_epoch: int) -> int:
    """The first step at or after a part of the epochs, as the PyTorch release counts."""
    return next(k for k in itertools.count(int(epoch * per_epoch)) if k / per_epoch >= epoch)


class _Outputs:
    """The files of a search that grow with it: metrics, alphas, genotype, pictures.

    Made on the process that writes; elsewhere every method does nothing.
    """

    def __init__(
        self, workdir: str, config: Mapping[str, Any], plan: Plan, step: int, primary: bool
    ) -> None:
        self.workdir, self.config, self.plan, self.primary = workdir, config, plan, primary
        self.history: list[dict[str, Any]] = []
        self.next_drawing = 0.0
        self.log = metrics.MetricsLog(workdir, step) if primary else None
        self.facts: dict[str, Any] = {}
        self.validation: dict[str, Any] = {}
        self.warnings: list[str] = []
        if primary and step:
            self.history = _history(os.path.join(workdir, "alphas.npz"), step)

    def metrics(self, kind: str, step: int, **values: Any) -> None:
        """Writes a row of metrics."""
        if kind == "start":
            self.facts = values
        elif kind == "validation":
            self.validation = values
        if self.log:
            self.log.write(kind, step, epoch=self.plan.epoch(step), **values)

    def alphas(self, state: SearchState, step: int, *, finished: bool) -> None:
        """Writes the alphas' history and the genotype they stand for now."""
        if not self.primary:
            return
        alphas = {kind: np.asarray(value) for kind, value in state.alphas.items()}
        if not self.history or self.history[-1]["step"] < step:
            self.history.append({"step": step, "epoch": self.plan.epoch(step), **alphas})
        columns: dict[str, Any] = {
            name: np.stack([np.asarray(row[name]) for row in self.history]) for name in _COLUMNS
        }
        with files.replacing(os.path.join(self.workdir, "alphas.npz"), "wb") as file:
            np.savez_compressed(file, **columns)
        operations = candidates.of_network(self.config["network"])
        self.warnings = verdict.of_alphas(
            columns["normal"],
            columns["reduce"],
            self.config["search"]["arch_start_epoch"],
            operations,
        )
        if self.validation:
            self.warnings += verdict.of_training(
                [self.validation], self.facts["num_classes"], self.facts["validation_images"]
            )
        document = genotype_lib.document(
            alphas["normal"],
            alphas["reduce"],
            {
                "dataset": self.config["dataset"]["name"],
                "task": self.config["task"]["name"],
                "seed": self.config["seed"],
                "step": step,
                "epoch": self.plan.epoch(step),
                "finished": finished,
                "warnings": self.warnings,
                "versions": versions(),
            },
            operations,
        )
        files.write_json(os.path.join(self.workdir, "genotype.json"), document)

    def pictures(self, *, final: bool) -> None:
        """Redraws the pictures and the report; before the end only as long as it costs 5%."""
        now = time.monotonic()
        if not self.primary or not (final or now >= self.next_drawing):
            return
        report.write(self.workdir)
        self.next_drawing = now + 20 * (time.monotonic() - now)

    def close(self) -> None:
        """Closes the metrics' files."""
        if self.log:
            self.log.close()


class _Learner:
    """A bilevel search as the loop sees it: alphas learn on half B, weights on half A."""

    def __init__(
        self,
        steps: Steps,
        state: SearchState,
        task: Task,
        outputs: _Outputs,
        streams: Sequence[Iterator[Any]],
        held_out: Callable[[], Iterator[Any]],
        arch_start: int,
    ) -> None:
        self._steps, self.state, self._task, self._outputs = steps, state, task, outputs
        self._streams, self._held_out, self._arch_start = streams, held_out, arch_start

    def step(self, step: int) -> Mapping[str, Sums | None]:
        batch_a, batch_b = (next(stream) for stream in self._streams)
        alpha_sums = None
        with jax.transfer_guard("disallow"):
            if step >= self._arch_start:
                with telling("Compiling the alphas' step", when=0 < step == self._arch_start):
                    self.state, alpha_sums = self._steps.alphas(self.state, batch_b, batch_a)
            self.state, weight_sums = self._steps.weights(self.state, batch_a)
        return {"weights": weight_sums, "alpha": alpha_sums}

    def evaluate(self) -> dict[str, float]:
        sums = [
            self._steps.evaluate(self.state, batch, number)
            for number, batch in enumerate(self._held_out())
        ]
        return self._task.summarize(jax.device_get(sums))

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        plan = self._outputs.plan
        self._outputs.metrics("validation", step, **metrics)
        _LOG.info(
            "Epoch %.3g, half B with running statistics: %s.",
            plan.epoch(step),
            ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()),
        )
        self._outputs.alphas(self.state, step, finished=step == plan.total)


def _history(path: str, step: int) -> list[dict[str, Any]]:
    """The rows of an alphas.npz up to a step; none if it is missing or damaged, which is said."""
    if not os.path.exists(path):
        return []
    try:
        old = results.read_alphas(path)
    except UserError as error:
        _LOG.warning("%s. The history of the alphas begins anew.", error)
        return []
    return [
        {name: getattr(old, name)[row] for name in _COLUMNS}
        for row in range(len(old.step))
        if old.step[row] <= step
    ]


def versions() -> dict[str, str]:
    """The versions of the packages that a result depends on."""
    libraries = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {
        "unnas_jax": __version__,
        **{name: importlib.metadata.version(name) for name in libraries},
    }


def search(config: ml_collections.ConfigDict, workdir: str) -> SearchState:
    """Runs a search to its end, or continues it, and leaves its files in `workdir`.

    Args:
      config: see `unnas_jax.config.schema.search`.
      workdir: a directory or an address gs://BUCKET/NAME; files as listed in the README.

    Returns:
      The final state, or that at which a signal stopped the run.

    Raises:
      UserError: bad input, or something became NaN or infinite.
      Interruption: what the run needs failed; the same call continues it.
    """
    refuse_unguarded_main()
    config_lib.validate(config)
    with workdir_lib.opened(workdir, write=distributed.is_primary()) as place:
        return _search(config.to_dict(), place)


def _search(c: dict[str, Any], workdir: Workdir) -> SearchState:
    # Everything that can be wrong, before anything long begins.
    mesh = sharding.data_mesh()
    for section in ("train", "eval"):
        sharding.check_batch_size(f"{section}.batch_size", c[section]["batch_size"], mesh)
    primary = distributed.is_primary()
    with contextlib.ExitStack() as stack:
        with distributed.together("workdir"):
            if primary:
                stack.enter_context(workdir_lib.alone(workdir))
            workdir_lib.claim(workdir, c, write=primary)

        # Data.
        with distributed.together("data"):
            workdir_lib.check_shared(workdir)
            dataset = open_dataset(c["dataset"])
        task = registry.create(c, dataset)
        records, data = dataset.splits["train"], fingerprint(dataset)
        check_images(dataset, c["input"]["crop"], task)
        half_a, half_b = halves(len(records), c["seed"])
        plan = _plan(c, dataset, len(half_a))
        held_out = evaluation_sample(half_b, c["eval"]["max_images"], c["seed"])
        feed = Feed(c, dataset, task, mesh)

        # Steps, state, and where it continues.
        steps = build_steps(c, task, mesh, plan.per_epoch)
        checkpoints = stack.enter_context(checkpoint.Checkpoints(workdir.checkpoints))
        restored = checkpoints.restore(steps.shapes())
        state, position = restored or (steps.init(), {"step": 0, "validation": None})
        check_same(workdir.name, position.get("data"), data, ("train",))
        step, ranking = int(position["step"]), position["validation"]
        outputs = stack.enter_context(
            contextlib.closing(_Outputs(workdir.path, c, plan, step, primary))
        )
        _LOG.info(
            "Searching on %s with %s: %d + %d images, %d steps of %d an epoch, %d devices (%s)%s.",
            dataset.name,
            task.name,
            len(half_a),
            len(half_b),
            plan.total,
            plan.per_epoch,
            mesh.size,
            jax.default_backend(),
            f", continuing at step {step}" if step else "",
        )
        outputs.metrics(
            "start",
            step,
            num_classes=task.num_classes,
            train_images=len(half_a),
            validation_images=len(held_out),
            devices=mesh.size,
            backend=jax.default_backend(),
            total_steps=plan.total,
        )
        if not outputs.history:  # At the start, and of a checkpoint that was brought over.
            outputs.alphas(state, step, finished=step == plan.total)

        # The loop.
        learner = _Learner(
            steps,
            state,
            task,
            outputs,
            [
                stack.enter_context(feed.train(records, half, seed=seed, start_step=step))
                for half, seed in ((half_a, 2 * c["seed"]), (half_b, 2 * c["seed"] + 1))
            ],
            lambda: feed.evaluation(records, held_out),
            _first_step(c["search"]["arch_start_epoch"], plan.per_epoch),
        )
        del state  # A step gives its memory to the next one's.
        loop = Loop(
            plan,
            learner,
            checkpoints,
            metric=task.metric,
            identity={"data": data},
            images=plan.batch_size,
            schedule=optim.weights_schedule(c, plan.per_epoch),
            write=outputs.metrics,
            publish=workdir.publish,
            after_save=lambda: outputs.pictures(final=False),
        )
        if loop.run(step, ranking) == plan.total:
            outputs.pictures(final=True)
            _LOG.info("Finished. See %s", os.path.join(workdir.name, "report.html"))
            for words in outputs.warnings:
                _LOG.warning("But %s.", words)
        return learner.state
