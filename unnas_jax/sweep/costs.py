"""What a sample-based experiment computes, before it is begun."""

import dataclasses
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from unnas_jax.config import schema
from unnas_jax.data.pipeline import steps_per_epoch
from unnas_jax.data.registry import entry_of
from unnas_jax.spaces import complexity
from unnas_jax.sweep.architectures import Architecture
from unnas_jax.sweep.scores import registry

FLOP = 2 * 3
"""Of a multiply-add in a training step: two, forward and twice as much backward."""


@dataclasses.dataclass(frozen=True)
class TaskCost:
    """What one task of a sample costs.

    Attributes:
      task: its name.
      trainings: architectures times seeds.
      steps: of a training.
      images: that a training takes from the host.
      inputs: of the network for an image: copies, views or tiles.
      parameters, multiply_adds: of a network for one image, the mean over the counted
        architectures; multiply-adds are those of a forward pass.
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
        """Of all trainings, evaluations aside."""
        return FLOP * self.multiply_adds * self.images * self.trainings


def _inputs(task: complexity.Task, crop: int) -> float:
    """How many inputs of the network the examples of an image are."""
    images = 4
    batch = {
        "image": jax.ShapeDtypeStruct((images, crop, crop, 3), np.uint8),
        "label": jax.ShapeDtypeStruct((images,), np.int32),
        "mask": jax.ShapeDtypeStruct((images,), np.float32),
        "record": jax.ShapeDtypeStruct((images,), np.int32),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    made = jax.eval_shape(lambda key, batch: task.examples(key, batch, train=True), key, batch)
    return made.inputs.shape[0] / images


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
        inputs = _inputs(complexity.task_of(unit), unit.input.crop)
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
