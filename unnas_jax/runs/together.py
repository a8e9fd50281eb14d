"""Several cells of a space trained in one program."""

import dataclasses
from collections.abc import Sequence

from jax.sharding import Mesh

from unnas_jax.config.options import Config
from unnas_jax.config.schema import TrainConfig
from unnas_jax.config.sections import Training
from unnas_jax.core.errors import UserError
from unnas_jax.learning import trainer
from unnas_jax.learning.trainer import TrainState, TrainSteps
from unnas_jax.spaces import networks
from unnas_jax.spaces import programs as programs_lib
from unnas_jax.spaces.programs import Program
from unnas_jax.tasks.base import Task, example_shapes


def programs(config: Config, cells: Sequence[str], task: Task) -> list[Program]:
    """The program of every cell, with the other settings of a training's valid config."""
    c, found = TrainConfig.of(config), []
    for cell in cells:
        section = dataclasses.replace(c.network, genotype=cell)
        network = networks.build_network(dataclasses.replace(c, network=section), task)
        found.append(programs_lib.of_network(network))
    return found


def begin(
    config: Config,
    cells: Sequence[str],
    seeds: Sequence[int],
    task: Task,
    mesh: Mesh,
    steps_per_epoch: int,
    form: str = "grouped",
) -> tuple[TrainSteps, TrainState]:
    """The steps and the first state of networks of several cells.

    Args:
      config: of a training; its cell does not matter.
      cells: texts for `network.genotype`, one for each network.
      seeds: of the networks, as many.
      task: what they learn.
      mesh: see `unnas_jax.core.sharding`.
      steps_per_epoch: see `trainer.build_steps`.
      form: of the convolutions, one of `unnas_jax.layers.forms.FORMS`.

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
    inputs = example_shapes(config, task).inputs
    steps = trainer.build_steps(
        Training.of(config), network, task, mesh, steps_per_epoch, inputs, form=form
    )
    return steps, steps.init(seeds, found)
