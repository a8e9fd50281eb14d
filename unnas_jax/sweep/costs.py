"""What a sample-based experiment computes, before it is begun."""

import dataclasses
from collections.abc import Sequence

import ml_collections
import numpy as np

from unnas_jax.config import schema
from unnas_jax.data.order import steps_per_epoch
from unnas_jax.data.registry import entry_of
from unnas_jax.spaces import complexity
from unnas_jax.sweep.architectures import Architecture
from unnas_jax.sweep.scores import registry
from unnas_jax.tasks.base import example_shapes

FLOP = 2 * 3
"""Operations of a multiply-add in a training step: two, forward and twice as many backward."""


# So many, because some tasks need several, to see what an image becomes.
_IMAGES = 4


@dataclasses.dataclass(frozen=True)
class TaskCost:
    """What one task of a sample costs.

    Attributes:
      task: its name.
      trainings: architectures times seeds.
      steps: the steps of a training.
      images: the images that a training takes from the host.
      inputs: the network's inputs made of an image: copies, views or tiles.
      parameters, multiply_adds: the network's, the mean over the counted architectures;
        multiply-adds are those of a forward pass of all inputs of an image.
    """

    task: str
    trainings: int
    steps: int
    images: int
    inputs: float
    parameters: float
    multiply_adds: float

    @property
    def flop(self) -> float:
        """The operations of all trainings, without evaluations."""
        return FLOP * self.multiply_adds * self.images * self.trainings


def of_sample(
    config: ml_collections.ConfigDict, chosen: Sequence[Architecture], counted: int
) -> list[TaskCost]:
    """The cost of every task that is trained; scores are left out.

    Args:
      config: a valid one of a sample, on a dataset whose number of images is known.
      chosen: its architectures.
      counted: how many of these are counted, the first ones.

    Raises:
      UserError: the dataset's number of classes is needed and not known.
    """
    costs = []
    for name in (task for task in config.tasks if task not in registry.SCORES):
        units = [schema.of_unit(config, name, each.cell).to_dict() for each in chosen[:counted]]
        counts = [complexity.of_config(unit) for unit in units]
        unit = schema.TrainConfig.of(units[0])
        per_epoch = steps_per_epoch(entry_of(unit.dataset.name).train_images, unit.train.batch_size)
        steps = per_epoch * unit.train.epochs
        if unit.train.max_steps > 0:
            steps = min(steps, unit.train.max_steps)
        shapes = example_shapes(unit, complexity.task_of(unit), _IMAGES)
        inputs = shapes.inputs.shape[0] / _IMAGES
        answers = inputs / counts[0]["inputs"]
        costs.append(
            TaskCost(
                name,
                trainings=len(chosen) * unit.seeds,
                steps=steps,
                images=steps * unit.train.batch_size,
                inputs=inputs,
                parameters=float(np.mean([count["parameters"] for count in counts])),
                multiply_adds=float(np.mean([count["multiply_adds"] for count in counts]))
                * answers,
            )
        )
    return costs
