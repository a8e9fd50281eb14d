"""The evaluation phase: a discrete network trained from scratch with labels, over several seeds."""

import contextlib
import dataclasses
import functools
import logging
import os
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath
from jax.sharding import Mesh

from unnas_jax.config import schema as config_lib
from unnas_jax.config.schema import TrainConfig
from unnas_jax.config.sections import Batches, NetworkSection, Pace, Training
from unnas_jax.core import distributed, files, sharding
from unnas_jax.core.errors import UserError
from unnas_jax.core.words import counted
from unnas_jax.data import Dataset, open_dataset
from unnas_jax.data import facts as facts_lib
from unnas_jax.data.inspection import check_images
from unnas_jax.data.records import check_same, fingerprint
from unnas_jax.data.workers import refuse_unguarded_main
from unnas_jax.layers import onednn
from unnas_jax.learning import metrics, optim, trackers, trainer
from unnas_jax.learning.feed import DeviceBatch, Feed
from unnas_jax.learning.trainer import TrainState, TrainSteps
from unnas_jax.runs import checkpoint, initial, together, validation
from unnas_jax.runs import workdir as workdir_lib
from unnas_jax.runs.loop import Loop, Plan
from unnas_jax.runs.result import Result, facts_of
from unnas_jax.runs.seeds import Seeds, subsets
from unnas_jax.runs.workdir import Workdir
from unnas_jax.spaces import complexity
from unnas_jax.spaces import registry as spaces
from unnas_jax.spaces.networks import build_network
from unnas_jax.spaces.registry import Cells, Network
from unnas_jax.tasks import registry
from unnas_jax.tasks.base import Sums, Task, example_shapes

_LOG = logging.getLogger("unnas_jax")

# The search that wrote a genotype may go on and replace it: a run keeps a copy, so that it finds
# the same cells when it continues.
_KEPT_CELLS = "genotype.json"


def _plan(config: TrainConfig, dataset: Dataset, images: int, save_seconds: float) -> Plan:
    """The plan of a training."""
    batch_size = config.train.batch_size
    per_epoch = images // batch_size
    if per_epoch == 0:
        raise UserError(
            f"config.train.batch_size={batch_size}: the dataset {dataset.name!r} has only "
            f"{counted(images, 'image')} to train on; use a smaller batch or more images"
        )
    steps, every = per_epoch * config.train.epochs, config.eval.every_epochs
    return Plan.of(Pace.of(config), per_epoch, steps, every_epochs=every, save_seconds=save_seconds)


def _cells_of(workdir: Workdir, section: NetworkSection) -> tuple[Cells, dict[str, Any]]:
    """The cells that a config's section `network` names, and what their file says besides.

    Raises:
      UserError: the file is no genotype, or the run in the workdir trains other cells.
    """
    space, name = spaces.of_section(section), section.genotype
    path, copy = space.file_of(name), os.path.join(workdir.path, _KEPT_CELLS)
    if path is None:
        return space.resolve(name), {}
    cells, document = space.load(path)
    if os.path.exists(copy):
        kept, document = space.load(copy)
        lines = config_lib.difference(kept.as_dict(), cells.as_dict())
        if lines:
            raise UserError(
                f"workdir {workdir.name} trains other cells than {name} holds now "
                f"({'; '.join(lines)}); give another --workdir"
            )
    return cells, document


def _group_size(
    config: TrainConfig, task: Task, steps: TrainSteps, state: TrainState, mesh: Mesh
) -> int:
    """How many seeds one program trains: all if they fit on an accelerator, one on a CPU.

    On a CPU several are not quicker, and XLA compiles their program for longer. Of several cells
    the networks of one seed are enough.
    """
    count, wanted = config.seeds, config.train.seeds_together
    if wanted > 0:
        return min(wanted, count)
    if count == 1 or jax.default_backend() == "cpu" or len(state.seed) > count:
        return 1
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", np.inf)
    needed = trainer.memory(Training.of(config), task, steps, count, mesh)
    if needed <= 0.9 * limit:
        return count
    _LOG.info("%d seeds at once would take %.1f GB: they train in turn.", count, needed / 1e9)
    return 1


@jax.jit
def _added(sums: list[Sums]) -> Sums:
    """The sums of all groups of seeds, joined and summed."""
    return jax.tree.map(lambda *values: jax.numpy.concatenate(values).sum(), *sums)


class _Learner:
    """The trainings of all seeds as the loop sees them."""

    position: Mapping[str, Any] = {}  # A training needs its state alone to go on,
    delay = 0  # and never goes back.

    def __init__(
        self,
        trained: Seeds,
        states: list[TrainState],
        streams: list[Iterator[DeviceBatch]],
        results: Sequence[Result],
        write: Callable[..., None],
    ) -> None:
        self._trained, self._states, self._streams = trained, states, streams
        self._results, self._write = results, write
        self._values: list[dict[str, float]] = []

    @property
    def state(self) -> TrainState:
        return trainer.joined(self._states, self._trained.mesh)

    def step(self, step: int) -> Mapping[str, Sums | None]:
        sums = []
        for number, stream in enumerate(self._streams):
            batch = next(stream)
            with jax.transfer_guard("disallow"):
                self._states[number], of_group = self._trained.steps.train(
                    self._states[number], batch
                )
            sums.append(of_group)
        return {"weights": _added(sums)}

    def evaluate(self) -> dict[str, float]:
        self._values = self._trained.evaluate(self._states)
        return {
            name: float(np.mean([value[name] for value in self._values]))
            for name in self._values[0]
        }

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        each = [value[self._trained.task.metric] for value in self._values]
        self._write("validation", step, **metrics, values=each)
        images, cells = len(self._trained.held_out.indices), len(self._results)
        for k, result in enumerate(self._results):
            result.write(
                result.of(
                    self._values[k::cells],
                    step,
                    images,
                    last=step == result.total,
                    confusion=self._trained.confusion[k::cells],
                )
            )


def train(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    optimizers: Mapping[str, optim.Optimizer] = types.MappingProxyType({}),
    save_seconds: float = 0.0,
    shared: bool = False,
) -> dict[str, Any]:
    """Trains a genotype's network to the end, or continues, and writes `result.json`.

    With config.mode = 'eval' it evaluates the newest checkpoint instead.

    Args:
      config: see `unnas_jax.config.schema.training`.
      workdir: a directory or an address gs://BUCKET/NAME; files as docs/files.md lists them.
      optimizers: an object that replaces the optimizer named in the section `weights`.
      save_seconds: the least time from the start, and from one checkpoint to the next. If it is
        not 0, none is saved at the end, for short trainings of which only the result is kept; a
        signal that stops the training always saves.
      shared: whether to train by the program for all cells of the space, if there is one, which
        this process keeps; the checkpoints are then that program's.

    Returns:
      The content of `result.json`; empty if the run was stopped before its first evaluation.

    Raises:
      UserError: bad input, or something became NaN or infinite.
      Interruption: what the run needs failed; the same call continues it.
    """
    refuse_unguarded_main()
    optim.check_objects(optimizers, ("weights",))
    config = optim.with_objects(config, optimizers)
    validation.validate(config, optimizers)
    with workdir_lib.opened(workdir, write=distributed.is_primary()) as place:
        optimizer = optimizers.get("weights")
        return _train(config.to_dict(), (), place, save_seconds, optimizer, shared)[0]


def train_cells(
    config: ml_collections.ConfigDict,
    cells: Sequence[str],
    workdir: str,
    *,
    save_seconds: float = 0.0,
) -> list[dict[str, Any]]:
    """Trains the networks of several cells of a space in one program, as `train` does one's.

    Args:
      config: of the training of the first cell.
      cells: texts for `network.genotype`, the config's first.
      workdir: of all of them, and of no others. In `metrics.jsonl` the `values` of an evaluation
        are those of all cells with the first seed, then of all with the second.
      save_seconds: see `train`.

    Returns:
      The results by cell, as `train` has them.

    Raises:
      UserError: bad input, or something became NaN or infinite; the cells share no program.
    """
    validation.validate(config)
    with workdir_lib.opened(workdir, write=distributed.is_primary()) as place:
        return _train(config.to_dict(), cells[1:], place, save_seconds, None, shared=True)


def _train(
    given: dict[str, Any],
    fellows: Sequence[str],
    workdir: Workdir,
    save_seconds: float,
    optimizer: optim.Optimizer | None,
    shared: bool,
) -> list[dict[str, Any]]:
    c = TrainConfig.of(given)
    # Everything that can be wrong, before anything long begins.
    mesh = sharding.data_mesh()
    sharding.check_batch_size("train.batch_size", c.train.batch_size, mesh)
    sharding.check_batch_size("eval.batch_size", c.eval.batch_size, mesh)
    primary, evaluate_only = distributed.is_primary(), c.mode == "eval"
    no_checkpoint = UserError(f"config.mode='eval': {workdir.name} has no checkpoint; train first")
    if evaluate_only and not epath.Path(workdir.checkpoints).is_dir():
        raise no_checkpoint
    with contextlib.ExitStack() as stack:
        with distributed.all_or_none("workdir"):
            workdir_lib.check_apart(workdir, c.dataset)
            if primary and not evaluate_only:
                stack.enter_context(workdir_lib.alone(workdir))
            workdir_lib.claim(workdir, given, write=primary and not evaluate_only)
        cells, document = _cells_of(workdir, c.network)

        # Data.
        with distributed.all_or_none("data"):
            workdir_lib.check_shared(workdir)
            dataset = open_dataset(c.dataset)
        task, data = registry.create(c, dataset), fingerprint(dataset)
        check_images(dataset, c.input.crop, task)
        training, held_out = subsets(c, dataset, task)
        plan = _plan(c, dataset, len(training.indices), save_seconds)

        # Network and steps.
        network = build_network(c, task)
        examples = example_shapes(c, task)
        spaces.of_section(c.network).check_inputs(c.network, task, examples)
        if document and primary and not evaluate_only:
            files.write_json(os.path.join(workdir.path, _KEPT_CELLS), document)
        if primary and not evaluate_only:
            facts_lib.write(workdir.path, dataset)
        seeds = [c.seed + k for k in range(c.seeds)]

        def result_of(
            place: Workdir, cells: Cells, document: Mapping[str, Any], network: Network
        ) -> Result:
            counts = complexity.of_network(c, task, network)
            facts = {
                **facts_of(c, dataset, cells, document, network),
                "parameters": counts.parameters,
                "multiply_adds": counts.multiply_adds,
                "seeds": seeds,
            }
            return Result(place, facts, task, plan, primary, dataset.class_names)

        networks, results = [network], [result_of(workdir, cells, document, network)]
        for number, text in enumerate(fellows, 1):
            section = dataclasses.replace(c.network, genotype=text)
            networks.append(build_network(dataclasses.replace(c, network=section), task))
            place = dataclasses.replace(workdir, path=os.path.join(workdir.path, str(number)))
            os.makedirs(place.path, exist_ok=True)
            fellow = spaces.of_section(section).resolve(text)
            results.append(result_of(place, fellow, {}, networks[-1]))
        # The networks of all cells with the first seed, then of all with the second.
        members = [seed for seed in seeds for _ in networks]
        found = together.in_common(c, networks) if shared else None
        if found:
            steps = together.steps(c, found[0], task, mesh, plan.per_epoch)
            begin = functools.partial(steps.init, members, found * len(seeds))
        elif fellows:
            raise UserError(f"{c.network.genotype} shares no program with the other cells")
        else:
            steps = trainer.build_steps(
                Training.of(c), network, task, mesh, plan.per_epoch, examples.inputs, optimizer
            )
            begin = functools.partial(steps.init, seeds)

        # State, and where it continues.
        checkpoints = stack.enter_context(
            checkpoint.Checkpoints(workdir.checkpoints, read_only=evaluate_only)
        )
        # The shapes, which are traced, only where there is something to restore.
        restored = checkpoints.restore_by(lambda position: steps.shapes(len(members)))
        if evaluate_only and restored is None:
            raise no_checkpoint
        state, position = restored or (begin(), {"step": 0, "validation": None})
        if restored is None and c.train.initial:
            begun = initial.with_weights_of(state, c.train.initial)
            state = sharding.replicate(begun, mesh)
        read = (held_out.split,) if evaluate_only else (training.split, held_out.split)
        check_same(workdir.name, position.get("data"), data, set(read))
        step, ranking = int(position["step"]), position["validation"]
        size = _group_size(c, task, steps, state, mesh) * len(networks)
        states = trainer.grouped(state, size, mesh)
        del restored, state  # A step gives its memory to the next one's.
        trained = Seeds(
            [members[k : k + size] for k in range(0, len(members), size)],
            steps,
            task,
            Feed(Batches.of(c), dataset, task, mesh),
            mesh,
            training,
            held_out,
            c.train.batch_size,
            c.train.precise_bn_images,
        )
        if evaluate_only:
            values = trained.evaluate(states)
            if not np.isfinite([number for value in values for number in value.values()]).all():
                raise UserError(
                    f"the evaluation of the checkpoint of step {step} is NaN or infinite; "
                    "nothing was written"
                )
            evaluated = results[0].of(
                values, step, len(held_out.indices), last=True, confusion=trained.confusion
            )
            results[0].add(evaluated)
            return [evaluated]

        _LOG.info(
            "Training %s (width %d, %d cells, %.3gM parameters, %.3gM multiply-adds)%s on %s: %d "
            "images, %d steps, seeds %s, %d at once, %s (%s)%s.",
            c.network.genotype,
            network.width,
            network.cells,
            results[0].facts["parameters"] / 1e6,
            results[0].facts["multiply_adds"] / 1e6,
            f" and {len(fellows)} other cells" if fellows else "",
            dataset.name,
            len(training.indices),
            plan.total,
            ", ".join(map(str, seeds)),
            size,
            counted(mesh.size, "device"),
            jax.default_backend(),
            f", continuing at step {step}" if step else "",
        )
        onednn.tell(jax.default_backend(), jax.device_count())
        log = None
        if primary:
            tracking = trackers.started(c.trackers, workdir.path, given, step)
            log = metrics.MetricsLog(workdir.path, step, tracking)
            stack.callback(log.close)

        def write(kind: str, step: int, **values: Any) -> None:
            if log:
                log.write(kind, step, epoch=plan.epoch(step), **values)

        write("start", step, num_classes=task.num_classes, total_steps=plan.total, seeds=seeds)

        # The loop.
        loop = Loop(
            plan,
            _Learner(trained, states, trained.batches(stack, step), results, write),
            checkpoints,
            metric=task.metric,
            identity={"data": data},
            images=plan.batch_size * len(members),
            schedule=None if optimizer else trainer.schedule(Training.of(c), plan.per_epoch),
            write=write,
            publish=workdir.publish,
        )
        loop.run(step, ranking)
        return [result.read() for result in results]
