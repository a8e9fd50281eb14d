"""The discrete network that the config of a training describes."""

from collections.abc import Mapping
from typing import Any

from unnas_jax.spaces import registry
from unnas_jax.spaces.registry import Network
from unnas_jax.tasks.base import Task


def build_network(config: Mapping[str, Any], task: Task) -> Network:
    """The discrete network of a validated config (as a dict) with the head of a task.

    Raises:
      UserError: no such cells, or no width fits the window of `width='fit'`.
    """
    return registry.of_config(config).build(config, task)
