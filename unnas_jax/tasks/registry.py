"""The tasks by name."""

from collections.abc import Mapping
from typing import Any

from unnas_jax.tasks.base import Task
from unnas_jax.tasks.classification import Classification
from unnas_jax.tasks.colorization import Colorization
from unnas_jax.tasks.jigsaw import Jigsaw
from unnas_jax.tasks.rotation import Rotation
from unnas_jax.tasks.segmentation import Segmentation

TASKS: dict[str, type[Task]] = {
    task.name: task for task in (Rotation, Colorization, Jigsaw, Classification, Segmentation)
}


def create(config: Mapping[str, Any], dataset: Any) -> Task:
    """The task that a config (as a dict) names, on a `unnas_jax.data.Dataset`."""
    return TASKS[config["task"]["name"]].create(config, dataset)
