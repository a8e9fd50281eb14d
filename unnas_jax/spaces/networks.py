"""The discrete network that the config of a training describes."""

from unnas_jax.config.options import Config
from unnas_jax.config.schema import TrainConfig
from unnas_jax.core import precision
from unnas_jax.spaces import registry
from unnas_jax.spaces.registry import Network
from unnas_jax.tasks.base import Task


def build_network(config: Config, task: Task) -> Network:
    """The discrete network of a validated config with the head of a task.

    Raises:
      UserError: no such cells, or no width fits the window of `width='fit'`.
    """
    c = TrainConfig.of(config)
    section, dtype = c.network, precision.compute_dtype(c.precision)
    return registry.of_section(section).build(section, task, dtype)
