"""Several cells of a space trained in one program."""

import dataclasses
from collections.abc import Hashable, Sequence

import flax.linen as nn
import jax
from jax.sharding import Mesh

from unnas_jax.config.options import Config
from unnas_jax.config.schema import TrainConfig
from unnas_jax.config.sections import Regularisation, Training
from unnas_jax.core.errors import UserError
from unnas_jax.data.order import steps_per_epoch
from unnas_jax.data.registry import entry_of
from unnas_jax.learning import optim, trainer
from unnas_jax.learning.trainer import TrainState, TrainSteps
from unnas_jax.spaces import networks, sharing
from unnas_jax.spaces.programs import Program
from unnas_jax.tasks.base import Task, example_shapes

PROGRAMS = ("auto", "shared", "own")
"""The values of config.sweep.program."""

# Compiling costs what shared steps cost more in so many: measured on a CPU core for small networks
# of NAS-Bench-201 (about 900) and -101 (about 3,000).
_FEW_STEPS = 1000


def is_shared(chosen: str, config: Config) -> bool:
    """Whether the trainings of one cell in a sweep are by the program for all cells.

    Args:
      chosen: one of `PROGRAMS`; `auto` is yes for short trainings on CPUs, which compiling would
        dominate. On accelerators choosing the operations by data is slow for one network alone.
      config: of the trainings.
    """
    c = TrainConfig.of(config)
    images = entry_of(c.dataset.name).train_images
    if chosen != "auto" or jax.default_backend() != "cpu":
        return chosen == "shared"
    ends = [c.train.max_steps] if c.train.max_steps > 0 else []
    if images:
        ends.append(steps_per_epoch(images, c.train.batch_size) * c.train.epochs)
    return bool(ends) and min(ends) * c.seeds <= _FEW_STEPS


_MOST = 16  # Cells at once on an accelerator.


def most(platform: str) -> int:
    """How many cells a sweep trains at once on devices of a platform, unless it is told.

    On a CPU one: alone it computes only the operations that its cell has.
    """
    return 1 if platform == "cpu" else _MOST


def programs(config: Config, cells: Sequence[str], task: Task) -> list[Program]:
    """The program of every cell, with the other settings of a training's valid config."""
    c, found = TrainConfig.of(config), []
    for cell in cells:
        section = dataclasses.replace(c.network, genotype=cell)
        network = networks.build_network(dataclasses.replace(c, network=section), task)
        found.append(sharing.program(c.network.space, network))
    return found


def is_suited(config: Config) -> bool:
    """Whether a training can be one by a program for many cells, if its space has one.

    The optimizer must treat what a cell lacks as if it were not there; and initial weights of
    another training are those of a cell's own network.
    """
    c = TrainConfig.of(config)
    return not c.train.initial and optim.ignores_zeros(c.weights)


def in_common(config: Config, networks: Sequence[nn.Module]) -> list[Program] | None:
    """The programs of several cells' own networks, if they are one and a training can use it."""
    space = TrainConfig.of(config).network.space
    found = [sharing.program(space, network) for network in networks]
    same = all(program.cell and program.network == found[0].network for program in found)
    return found if same and is_suited(config) else None


_STEPS: dict[Hashable, TrainSteps] = {}


def steps(
    config: Config,
    program: Program,
    task: Task,
    mesh: Mesh,
    steps_per_epoch: int,
    form: str = "",
) -> TrainSteps:
    """The steps of all trainings by a program for many cells; made once in a process.

    So the second training of a space and task compiles nothing.

    Args:
      config: of a training; its cell does not matter.
      program: of a cell.
      task: what is learned.
      mesh: see `unnas_jax.core.sharding`.
      steps_per_epoch: see `trainer.build_steps`.
      form: of the convolutions of several networks, see `trainer.build_steps`.
    """
    given, inputs = Training.of(config), example_shapes(config, task).inputs
    network = given.network  # Of a whole config it is the whole section, with the cell.
    plain = Regularisation(network.auxiliary_weight, network.drop_path)
    training = dataclasses.replace(given, network=plain)

    def made() -> TrainSteps:
        return trainer.build_steps(
            training, program.network, task, mesh, steps_per_epoch, inputs, form=form
        )

    try:
        # Sections have fields that cannot be hashed; their texts tell them apart.
        key = (repr(training), program.network, task, mesh, steps_per_epoch, inputs.shape, form)
        if key not in _STEPS:
            _STEPS[key] = made()
    except TypeError:  # A task of one's own need not have a hash.
        return made()
    return _STEPS[key]


def begin(
    config: Config,
    cells: Sequence[str],
    seeds: Sequence[int],
    task: Task,
    mesh: Mesh,
    steps_per_epoch: int,
    form: str = "",
) -> tuple[TrainSteps, TrainState]:
    """The steps and the first state of networks of several cells.

    Args:
      config: of a training; its cell does not matter.
      cells: texts for `network.genotype`, one for each network.
      seeds: of the networks, as many.
      task: what they learn.
      mesh: see `unnas_jax.core.sharding`.
      steps_per_epoch: see `trainer.build_steps`.
      form: of the convolutions, see `trainer.build_steps`.

    Returns:
      steps, whose batches have a leading axis of the networks, and their state.

    Raises:
      UserError: the cells have no program in common.
    """
    found = programs(config, cells, task)
    network = found[0].network
    alone = [cell for cell, program in zip(cells, found, strict=True) if program.network != network]
    if alone or not found[0].cell:
        raise UserError(
            f"the cell {(alone or cells)[0]} shares no program with {cells[0]}; train it by itself"
        )
    made = steps(config, found[0], task, mesh, steps_per_epoch, form)
    return made, made.init(seeds, found)
