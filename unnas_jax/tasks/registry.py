"""The tasks by name, to which others can add theirs."""

from typing import Any

from unnas_jax.config import schema
from unnas_jax.config.options import Config
from unnas_jax.config.sections import TaskConfig
from unnas_jax.core.errors import UserError
from unnas_jax.core.registry import Registry, nearest
from unnas_jax.data.records import IMAGENET_MEAN, IMAGENET_STD, Dataset
from unnas_jax.tasks.base import Task
from unnas_jax.tasks.classification import Classification
from unnas_jax.tasks.colorization import Colorization
from unnas_jax.tasks.contrastive import Contrastive
from unnas_jax.tasks.jigsaw import Jigsaw
from unnas_jax.tasks.masked import Masked
from unnas_jax.tasks.random_labels import RandomLabels
from unnas_jax.tasks.regression import Regression
from unnas_jax.tasks.rotation import Rotation
from unnas_jax.tasks.segmentation import Segmentation

TASKS: Registry[type[Task]] = Registry(
    "task",
    {
        task.name: task
        for task in (
            Rotation,
            Colorization,
            Jigsaw,
            Classification,
            Segmentation,
            RandomLabels,
            Masked,
            Contrastive,
            Regression,
        )
    },
)
"""The tasks, by the value of config.task.name."""


def create(config: Config, dataset: Any) -> Task:
    """The task that a config names, on a `unnas_jax.data.Dataset`."""
    return of_config(config).create(TaskConfig.of(config), dataset)


def of_config(config: Config) -> type[Task]:
    """The task that a config names, without a dataset.

    Raises:
      UserError: there is no such task.
    """
    return TASKS.find(TaskConfig.of(config).task.name, "task.name")


def validate(config: Config) -> None:
    """Raises `UserError` for a config that its task cannot run."""
    of_config(config).validate(TaskConfig.of(config))


def register_task(task: type[Task]) -> type[Task]:
    """Adds a task under its `name`, for this process; usable as a decorator.

    Raises:
      UserError: the name is that of something else, see `Registry.register`.
    """
    return TASKS.register(task.name, task)


def task(
    name: str,
    dataset: Dataset | None = None,
    *,
    classes: int = 0,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    **options: Any,
) -> Task:
    """A task by itself, without a run's config.

    Args:
      name: one of `TASKS`.
      dataset: the dataset from which classes and statistics are taken, instead of the next three.
      classes: of the labels, for classification and segmentation.
      mean, std: of the RGB channels in [0, 1], by which images are normalised.
      options: fields of the config's sections `task` (grid, permutations, aspp_channels, ...) and
        `input` (crop, lighting, gray, pad, ...), `precision` and `seed`; by default as in a
        search's config.

    Raises:
      UserError: there is no such task or option, or their values are impossible.
    """
    config = schema.search().to_dict()
    sections = {key: section for section in ("task", "input") for key in config[section]}
    for key, value in options.items():
        if key in ("precision", "seed"):
            config[key] = value
        elif key in sections and key != "name":
            config[sections[key]][key] = value
        else:
            raise UserError(f"task {name!r}: {nearest(key, sections)}there is no option {key!r}")
    config["task"]["name"] = name
    validate(config)
    if dataset is None:
        names = tuple(map(str, range(classes)))
        dataset = Dataset("without images", {}, classes, names, mean, std)
    return create(config, dataset)
