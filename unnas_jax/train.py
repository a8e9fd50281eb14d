"""The evaluation phase: a discrete network trained from scratch with labels, over several seeds."""

import collections
import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from unnas_jax import (
    checkpoint,
    complexity,
    files,
    metrics,
    optim,
    precision,
    sharding,
    stopping,
    trainer,
)
from unnas_jax import config as config_lib
from unnas_jax import workdir as workdir_lib
from unnas_jax.bilevel import example_shapes
from unnas_jax.data import Dataset, halves, open_dataset
from unnas_jax.data.registry import Records
from unnas_jax.data.sizes import check_sizes
from unnas_jax.errors import UserError
from unnas_jax.feed import DeviceBatch, Feed
from unnas_jax.progress import Progress
from unnas_jax.spaces.darts import genotype as genotype_lib
from unnas_jax.spaces.darts import published
from unnas_jax.spaces.darts.network import Network
from unnas_jax.tasks import registry
from unnas_jax.tasks.base import Sums, Task

_LOG = logging.getLogger("unnas_jax")

RESULT_SCHEMA = "unnas_jax.result/1"


def build_network(config: Mapping[str, Any], task: Task) -> Network:
    """The discrete network of a validated config (as a dict) with the head of a task.

    Raises:
      UserError: no such genotype, or no width fits the window of `width='fit'`.
    """
    section = config["network"]
    genotype = published.resolve(section["genotype"])
    dtype = precision.compute_dtype(config["precision"])
    width = section["width"]
    if width == "fit":
        window = complexity.CITYSCAPES if task.single_reduction else complexity.IMAGENET
        width = complexity.fit_width(genotype, window)
        _LOG.info("Width %d fits %s into the paper's window.", width, section["genotype"])
    return Network(
        genotype=genotype,
        width=int(width),
        cells=section["cells"],
        stem=section["stem"],
        head=task.head(dtype),
        auxiliary_classes=task.num_classes if section["auxiliary_weight"] else 0,
        single_reduction=task.single_reduction,
        dtype=dtype,
    )


def _splits(
    config: Mapping[str, Any], dataset: Dataset
) -> tuple[Records, np.ndarray, Records, np.ndarray]:
    """Records and example numbers to train and to evaluate on.

    Where the dataset has no held-out split, the second half of a seeded permutation is held out.
    """
    train = dataset.splits["train"]
    for name in ("validation", "test"):
        if name in dataset.splits:
            held = dataset.splits[name]
            return train, np.arange(len(train)), held, np.arange(len(held))
    kept, held_out = halves(len(train), 0)
    _LOG.warning(
        "The dataset %s has no split validation or test: half of its images is held out.",
        dataset.name,
    )
    return train, kept, train, held_out


def _together(config: Mapping[str, Any], count: int) -> int:
    """How many seeds one program trains: on a CPU one, elsewhere all, unless the config says."""
    together: int = config["train"]["seeds_together"]
    if together > 0:
        return min(together, count)
    return 1 if jax.default_backend() == "cpu" else count


class _Groups:
    """The seeds of a run, cut into groups that are trained in one program each, step by step."""

    def __init__(self, steps: trainer.TrainSteps, seeds: list[int], together: int) -> None:
        self.steps = steps
        self.seeds = [seeds[k : k + together] for k in range(0, len(seeds), together)]

    def init(self) -> list[trainer.TrainState]:
        """The states of all groups."""
        return [self.steps.init(group) for group in self.seeds]

    def evaluate(
        self, states: list[trainer.TrainState], batches: Iterator[DeviceBatch], task: Task
    ) -> list[dict[str, float]]:
        """The metrics of every seed over one pass."""
        sums: list[list[Sums]] = [[] for _ in states]
        for number, batch in enumerate(batches):
            for of_group, state in zip(sums, states, strict=True):
                of_group.append(self.steps.evaluate(state, batch, number))
        fetched = jax.device_get(sums)
        return [
            task.summarize([{name: value[k] for name, value in s.items()} for s in of_group])
            for of_group, group in zip(fetched, self.seeds, strict=True)
            for k in range(len(group))
        ]


class _SeedStreams:
    """Training batches (S, B, ...) per group: every seed has its own order and crops."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        feed: Feed,
        records: Records,
        indices: np.ndarray,
        groups: list[list[int]],
        start_step: int,
        mesh: Mesh,
    ) -> None:
        self._mesh = mesh
        self._streams = [
            [
                stack.enter_context(
                    feed.train(records, indices, seed=seed, start_step=start_step, place=False)
                )
                for seed in group
            ]
            for group in groups
        ]

    def next(self, group: int) -> DeviceBatch:
        """The group's batch of the next step."""
        batches = [next(stream) for stream in self._streams[group]]
        return stack_seeds(batches, self._mesh)


def stack_seeds(batches: list[Any], mesh: Mesh) -> DeviceBatch:
    """Host batches of several seeds as global arrays (S, B, ...)."""
    placed = trainer.split_seeds(mesh)
    return {
        name: jax.make_array_from_process_local_data(
            placed, np.stack([batch[name] for batch in batches])
        )
        for name in batches[0]
    }


def train(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
    """Trains a genotype's network to the end, or continues, and writes `result.json`.

    With config.mode = 'eval' it evaluates the newest checkpoint instead.

    Args:
      config: see `unnas_jax.config.training`.
      workdir: a directory; files as listed in the README.

    Returns:
      The content of `result.json`.

    Raises:
      UserError: bad input, or the loss became NaN.
    """
    # Everything that can be wrong, before anything long begins.
    config_lib.validate(config)
    c = config.to_dict()
    mesh = sharding.data_mesh()
    for section in ("train", "eval"):
        sharding.check_batch_size(f"{section}.batch_size", c[section]["batch_size"], mesh)
    primary, evaluate_only = jax.process_index() == 0, c["mode"] == "eval"
    genotype = published.resolve(c["network"]["genotype"])
    workdir_lib.claim(workdir, c, write=primary)

    # Data.
    dataset = open_dataset(c["dataset"])
    task = registry.create(c, dataset)
    check_sizes(dataset, c["input"]["crop"])
    records, indices, held_records, held = _splits(c, dataset)
    if c["eval"]["max_images"] > 0:
        held = held[: c["eval"]["max_images"]]
    per_epoch = len(indices) // c["train"]["batch_size"]
    if per_epoch == 0:
        raise UserError(
            f"config.train.batch_size={c['train']['batch_size']}: the dataset {dataset.name!r} has "
            f"only {len(indices)} images to train on; use a smaller batch"
        )
    total = per_epoch * c["train"]["epochs"]
    if c["train"]["max_steps"] > 0:
        total = min(total, c["train"]["max_steps"])
    feed = Feed(c, dataset, task, mesh)

    # Network, steps, state, and where it continues.
    network = build_network(c, task)
    inputs = example_shapes(c, task).inputs
    steps = trainer.build_steps(c, network, task, mesh, per_epoch, inputs)
    seeds = [c["seed"] + k for k in range(c["seeds"])]
    groups = _Groups(steps, seeds, _together(c, len(seeds)))
    states = groups.init()
    checkpoints = checkpoint.Checkpoints(workdir)
    restored = checkpoints.restore(states)
    step, ranking = 0, None
    if restored is not None:
        states, position = restored
        step, ranking = int(position["step"]), position["validation"]
    elif evaluate_only:
        raise UserError(f"config.mode='eval': {workdir} has no checkpoint; train first")

    log = metrics.MetricsLog(workdir, step) if primary else None

    def write(kind: str, step: int, **values: Any) -> None:
        if log:
            log.write(kind, step, epoch=step / per_epoch, **values)

    counts = complexity.count(network, inputs.shape[1:])
    _LOG.info(
        "Training %s (width %d, %d cells, %.2fM parameters, %.0fM multiply-adds) on %s: %d images, "
        "%d steps, seeds %s, %d devices (%s)%s.",
        c["network"]["genotype"],
        network.width,
        network.cells,
        counts.parameters / 1e6,
        counts.multiply_adds / 1e6,
        dataset.name,
        len(indices),
        total,
        ", ".join(map(str, seeds)),
        mesh.size,
        jax.default_backend(),
        f", continuing at step {step}" if step else "",
    )
    write("start", step, num_classes=task.num_classes, total_steps=total, seeds=seeds)
    progress = Progress(
        total_steps=total,
        steps_per_epoch=per_epoch,
        batch_size=c["train"]["batch_size"] * len(seeds),
        schedule=optim.training_schedule(c, per_epoch),
        write=write,
        last_checkpoint=checkpoints.latest,
    )

    def precise(states: list[trainer.TrainState]) -> list[trainer.TrainState]:
        """The states with BN statistics averaged over some training images."""
        count = c["train"]["precise_bn_images"]
        if not count:
            return states
        kept = []
        batches = max(1, count // c["train"]["batch_size"])
        for state, group in zip(states, groups.seeds, strict=True):
            found = []
            with feed.train(records, indices, seed=c["seed"], start_step=0, place=False) as stream:
                for _ in range(batches):
                    batch = stack_seeds([next(stream)] * len(group), mesh)
                    found.append(steps.statistics(state, batch))
            mean = jax.tree.map(lambda *values: sum(values) / len(values), *found)
            kept.append(state.replace(batch_stats=mean))
        return kept

    def evaluate() -> list[dict[str, float]]:
        batches = feed.evaluation(held_records, held)
        return groups.evaluate(precise(states), batches, task)

    def report(values: list[dict[str, float]], *, finished: bool) -> dict[str, Any]:
        numbers = [value[task.metric] for value in values]
        result = {
            "schema": RESULT_SCHEMA,
            "experiment": "train",
            "dataset": dataset.name,
            "task": task.name,
            "genotype": c["network"]["genotype"],
            "genotype_source": _source(c["network"]["genotype"]),
            "cells_used": genotype.as_dict(),
            "width": network.width,
            "cells": network.cells,
            "parameters": counts.parameters,
            "multiply_adds": counts.multiply_adds,
            "seeds": seeds,
            "metric": task.metric,
            "values": numbers,
            "mean": float(np.mean(numbers)),
            "std": float(np.std(numbers, ddof=1)) if len(numbers) > 1 else 0.0,
            "loss": [value["loss"] for value in values],
            "step": step,
            "epoch": step / per_epoch,
            "finished": finished,
        }
        if primary:
            files.write_json(os.path.join(workdir, "result.json"), result)
        _LOG.info(
            "Epoch %.3g, %d images held out: %s %.2f%% +- %.2f (%s).",
            step / per_epoch,
            len(held),
            task.metric,
            100 * result["mean"],
            100 * result["std"],
            ", ".join(f"{100 * number:.2f}" for number in numbers),
        )
        return result

    if evaluate_only:
        result = report(evaluate(), finished=step >= total)
        checkpoints.close()
        return result

    # The loop.
    first_step, running = step, collections.deque[Any]()
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stopping.on_sigterm())
        streams = _SeedStreams(stack, feed, records, indices, groups.seeds, step, mesh)
        while step < total and not stop.requested:
            sums = []
            for number in range(len(states)):
                batch = streams.next(number)
                states[number], of_group = steps.train(states[number], batch)
                sums.append(of_group)
            step += 1
            progress.add({"weights": _added(sums)})
            if step - 1 == first_step:
                jax.block_until_ready(sums)
                progress.restart()
            # The host may run ahead of the devices, but only a few batches.
            running.append(sums)
            if len(running) > 4:
                jax.block_until_ready(running.popleft())

            epoch_ends = step % per_epoch == 0
            evaluates = step == total or (
                epoch_ends and (step // per_epoch) % c["eval"]["every_epochs"] == 0
            )
            saves = step % c["checkpoint_every_steps"] == 0 or stop.requested
            if progress.steps >= c["log_every_steps"] or evaluates or saves:
                progress.flush(step)
            if evaluates:
                values = evaluate()
                ranking = float(np.mean([value[task.metric] for value in values]))
                write(
                    "validation",
                    step,
                    **{
                        name: float(np.mean([value[name] for value in values]))
                        for name in values[0]
                    },
                )
                report(values, finished=step == total)
            if evaluates or saves:
                position = {
                    "step": step,
                    "epoch": step / per_epoch,
                    "data_position": step * c["train"]["batch_size"],
                    "validation": ranking,
                }
                checkpoints.save(step, states, position, ranking if evaluates else None)
                progress.restart()

    # The end.
    checkpoints.close()
    if log:
        log.close()
    if step < total:
        _LOG.info("Stopped by a signal at step %d; the same command continues.", step)
    path = os.path.join(workdir, "result.json")
    return files.read_json(path) if os.path.exists(path) else {}


def _added(sums: list[Sums]) -> Sums:
    """The sums of all seeds of all groups together."""
    return {name: sum(of_group[name].sum() for of_group in sums) for name in sums[0]}


def _source(genotype: str) -> dict[str, str] | None:
    """Where a searched genotype came from; None for a published one."""
    if genotype in published.GENOTYPES:
        return None
    _, document = genotype_lib.load(genotype)
    return {"dataset": str(document.get("dataset")), "task": str(document.get("task"))}
