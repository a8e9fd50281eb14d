"""What the tests' tasks are made for: configs and datasets with only what tasks read."""

import types
from typing import Any

import jax
import numpy as np

from unnas_jax.config import schema

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def dataset(
    mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD, num_classes: int = 10
) -> Any:
    return types.SimpleNamespace(name="some images", mean=mean, std=std, num_classes=num_classes)


def plain() -> Any:
    """A dataset whose normalisation changes nothing."""
    return dataset((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def config(name: str, **task: Any) -> dict[str, Any]:
    """A config without augmentations but the flip; `grid` and `permutations` for the jigsaw."""
    config = schema.search()
    config.input.update(crop=48, lighting=0.0)
    config.precision = "float32"
    return {**config.to_dict(), "task": {**config.task.to_dict(), "name": name, **task}}


def images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Random uint8 images (count, size, size, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def examples(task: Any, seed: int, batch: Any, train: bool) -> Any:
    """What a task makes of a batch, in one program, as in a run."""
    return jax.jit(task.examples, static_argnames="train")(jax.random.key(seed), batch, train=train)


def score(task: Any, outputs: Any, examples: Any, train: bool) -> Any:
    """A task's sums, in one program."""
    return jax.jit(task.score, static_argnames="train")(outputs, examples, train=train)
