"""The search phase: a supernet trained on a task, whose alphas become a discrete cell."""

import collections
import contextlib
import dataclasses
import importlib.metadata
import itertools
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from unnas_jax import __version__
from unnas_jax.analysis import report, results
from unnas_jax.config import schema as config_lib
from unnas_jax.core import distributed, files, sharding, stopping
from unnas_jax.core.errors import UserError
from unnas_jax.data import Dataset, halves, open_dataset
from unnas_jax.data.inspection import check_images
from unnas_jax.data.pipeline import evaluation_sample
from unnas_jax.data.workers import refuse_unguarded_main
from unnas_jax.learning import metrics, optim
from unnas_jax.learning.feed import STEPS_AHEAD, Feed
from unnas_jax.learning.progress import Progress
from unnas_jax.methods.bilevel import SearchState, build_steps
from unnas_jax.runs import checkpoint
from unnas_jax.runs import workdir as workdir_lib
from unnas_jax.runs.workdir import Workdir
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts import genotype as genotype_lib
from unnas_jax.tasks import registry
from unnas_jax.tasks.base import Sums

_LOG = logging.getLogger("unnas_jax")

_COLUMNS = ("step", "epoch", "normal", "reduce")  # Of alphas.npz.


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How many steps a search has and when the alphas begin to move."""

    steps_per_epoch: int
    total: int
    arch_start: int

    def epoch(self, step: int) -> float:
        return step / self.steps_per_epoch


def _plan(config: Mapping[str, Any], dataset: Dataset, images: int) -> _Plan:
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
    # The first step at or after that part of an epoch.
    start = config["search"]["arch_start_epoch"]
    first = next(k for k in itertools.count(int(start * per_epoch)) if k / per_epoch >= start)
    return _Plan(per_epoch, total, first)


class _Outputs:
    """The files of a search that grow with it: metrics, alphas, genotype, pictures.

    Made on the process that writes; elsewhere every method does nothing.
    """

    def __init__(
        self, workdir: str, config: Mapping[str, Any], plan: _Plan, step: int, primary: bool
    ) -> None:
        self.workdir, self.config, self.plan, self.primary = workdir, config, plan, primary
        self.history: list[dict[str, Any]] = []
        self.next_drawing = 0.0
        self.log = metrics.MetricsLog(workdir, step) if primary else None
        path = os.path.join(workdir, "alphas.npz")
        if primary and step and os.path.exists(path):
            old = results.read_alphas(path)
            self.history = [
                {name: getattr(old, name)[row] for name in _COLUMNS}
                for row in range(len(old.step))
                if old.step[row] <= step
            ]

    def metrics(self, kind: str, step: int, **values: Any) -> None:
        """Writes a row of metrics."""
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
                "versions": versions(),
            },
            candidates.of_network(self.config["network"]),
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
      The final state, or that at which a SIGTERM stopped the run.

    Raises:
      UserError: bad input, or the loss became NaN.
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
    with distributed.together("workdir"):
        workdir_lib.claim(workdir, c, write=primary)

    # Data.
    with distributed.together("data"):
        workdir_lib.check_shared(workdir)
        dataset = open_dataset(c["dataset"])
    task = registry.create(c, dataset)
    records = dataset.splits["train"]
    check_images(dataset, c["input"]["crop"], task)
    half_a, half_b = halves(len(records), c["seed"])
    plan = _plan(c, dataset, len(half_a))
    held_out = evaluation_sample(half_b, c["eval"]["max_images"], c["seed"])
    feed = Feed(c, dataset, task, mesh)

    with contextlib.ExitStack() as stack:
        # Steps, state, and where it continues.
        steps = build_steps(c, task, mesh, plan.steps_per_epoch)
        state = steps.init()
        checkpoints = stack.enter_context(
            contextlib.closing(checkpoint.Checkpoints(workdir.checkpoints))
        )
        restored = checkpoints.restore(state)
        step, ranking = 0, None
        if restored is not None:
            state, position = restored
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
            plan.steps_per_epoch,
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
        progress = Progress(
            total_steps=plan.total,
            steps_per_epoch=plan.steps_per_epoch,
            batch_size=c["train"]["batch_size"],
            schedule=optim.weights_schedule(c, plan.steps_per_epoch),
            write=outputs.metrics,
            last_checkpoint=checkpoints.latest,
        )

        def save(ranked: bool) -> None:
            # The step determines where both streams of data stand; it is spelled out for readers.
            position = {
                "step": step,
                "epoch": plan.epoch(step),
                "data_position": step * c["train"]["batch_size"],
                "validation": ranking,
            }
            workdir.publish()
            checkpoints.save(step, state, position, ranking if ranked else None)

        # The loop.
        first_step, running = step, collections.deque[Sums]()
        stop = stack.enter_context(stopping.on_sigterm())
        stack.enter_context(distributed.bounded())
        stream_a, stream_b = (
            stack.enter_context(feed.train(records, half, seed=seed, start_step=step))
            for half, seed in ((half_a, 2 * c["seed"]), (half_b, 2 * c["seed"] + 1))
        )
        while step < plan.total:
            batch_a, batch_b = next(stream_a), next(stream_b)
            with jax.transfer_guard("disallow"):
                alpha_sums = None
                if step >= plan.arch_start:
                    state, alpha_sums = steps.alphas(state, batch_b, batch_a)
                state, weight_sums = steps.weights(state, batch_a)
            step += 1
            progress.add({"weights": weight_sums, "alpha": alpha_sums})
            if step - 1 in (first_step, plan.arch_start):
                # Compiling is not training: leave the steps that compiled out of the rates.
                jax.block_until_ready(weight_sums)
                progress.restart()
            # The host may run ahead of the devices, but only a few batches.
            running.append(weight_sums)
            if len(running) > STEPS_AHEAD:
                jax.block_until_ready(running.popleft())

            epoch_ends = step % plan.steps_per_epoch == 0 or step == plan.total
            stops = stop(step)
            saves = step % c["checkpoint_every_steps"] == 0 or stops
            if progress.steps >= c["log_every_steps"] or epoch_ends or saves:
                progress.flush(step)
            if epoch_ends:
                sums = [
                    steps.evaluate(state, batch, number)
                    for number, batch in enumerate(feed.evaluation(records, held_out))
                ]
                held = task.summarize(jax.device_get(sums))
                ranking = held[task.metric]
                outputs.metrics("validation", step, **held)
                _LOG.info(
                    "Epoch %.3g, half B with running statistics: %s.",
                    plan.epoch(step),
                    ", ".join(f"{name} {value:.4f}" for name, value in held.items()),
                )
                outputs.alphas(state, step, finished=step == plan.total)
            if epoch_ends or saves:
                save(ranked=epoch_ends)
                if epoch_ends:
                    outputs.pictures(final=False)
                progress.restart()
            if stops:
                break

        # The end.
        checkpoints.wait()
        if step < plan.total:
            _LOG.info("Stopped by a signal at step %d; the same command continues.", step)
        else:
            outputs.pictures(final=True)
            _LOG.info("Finished. See %s", os.path.join(workdir.name, "report.html"))
        return state
