"""How long a network takes on this device, and how much memory: measured, in evaluation."""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.core.errors import UserError
from unnas_jax.spaces import complexity, networks

_SECONDS = 2.0  # The least time of all calls.
_CALLS = (5, 200)


def measure(
    config: Mapping[str, Any], classes: int | None = None, batch: int = 1
) -> dict[str, Any]:
    """Times the network of a training's config (a valid one, as a dict), with zeros for weights.

    Args:
      config: its `precision` counts.
      classes: see `complexity.of_config`.
      batch: answers in one call.

    Returns:
      `device`; `batch`; `milliseconds`, the median of a call's time, and `milliseconds_90`, that of
      the slowest tenth; `answers_per_second`, by the median; `memory_bytes` of the program:
      weights, inputs, outputs and what it needs between them, as XLA plans it.

    Raises:
      UserError: the config is of a search.
    """
    if config["experiment"] != "train":
        raise UserError("--time: only the network of a training is used alone; give its config")
    task = complexity.task_of(config, classes)
    network = networks.build_network(config, task)
    group = getattr(network.head, "group", 1)
    size = complexity.counted_size(config, task)
    inputs = jnp.zeros((batch * group, *size, task.input_channels), jnp.float32)
    shapes = jax.eval_shape(
        lambda key: network.lazy_init(key, inputs, train=False), jax.random.key(0)
    )
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def answer(variables: Any, inputs: jax.Array) -> jax.Array:
        outputs: jax.Array = network.apply(
            variables, inputs, train=False, rngs={"noise": jax.random.key(0)}
        )[0]
        return outputs

    compiled = jax.jit(answer).lower(variables, inputs).compile()
    plan: Any = compiled.memory_analysis()
    jax.block_until_ready(compiled(variables, inputs))
    taken: list[float] = []
    while len(taken) < _CALLS[0] or (sum(taken) < _SECONDS and len(taken) < _CALLS[1]):
        start = time.perf_counter()
        jax.block_until_ready(compiled(variables, inputs))
        taken.append(time.perf_counter() - start)
    median = statistics.median(taken)
    return {
        "device": jax.devices()[0].device_kind,
        "batch": batch,
        "milliseconds": 1000 * median,
        "milliseconds_90": 1000 * float(np.quantile(taken, 0.9)),
        "answers_per_second": batch / median,
        "memory_bytes": plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        + plan.temp_size_in_bytes,
    }
