"""Initial weights from another training, in the place of a training's own draws."""

import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from unnas_jax.core.errors import UserError
from unnas_jax.learning.trainer import TrainState
from unnas_jax.runs import trained

_LOG = logging.getLogger("unnas_jax")

# Heads answer for a task; the stem sees its images, which may have other channels.
_OWN, _FIRST = ("head", "auxiliary"), ("stem", "stem_0")
_NAMED = 4  # Arrays that a message names.

Flat = Mapping[tuple[str, ...], np.ndarray]


def with_weights_of(state: TrainState, workdir: str) -> TrainState:
    """A new state with the weights and statistics of a training of the same cells.

    Everything but the heads is taken: what the other training's evaluations use, its averages if it
    made them. The k-th seed takes the k-th of the other's, and again the first after its last. The
    stem keeps its own draws where images have other channels (after colorization).

    Args:
      state: of a training that has not begun.
      workdir: of the other training, the value of config.train.initial.

    Returns:
      The state, as NumPy arrays.

    Raises:
      UserError: there is no such training, or its arrays do not fit: some of them are named.
    """
    key = f"config.train.initial={workdir!r}"
    try:
        other = trained.read(workdir, seed="all", exact=False)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    numbers = np.arange(len(state.seed)) % len(other.seeds)
    there = {
        path: leaf[numbers] for path, leaf in traverse_util.flatten_dict(other.variables).items()
    }
    host = jax.device_get(state)
    ours = traverse_util.flatten_dict({"params": host.params, "batch_stats": host.batch_stats})
    taken, lacking = _fitting(ours, there)
    wrong = [line for path, line in lacking.items() if path[1] not in _FIRST]
    if wrong:
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise UserError(
            f"{key}: its network is another: {'; '.join(wrong[:_NAMED])}{more}; give a training of "
            "the same cells, width, number of cells and stem"
        )
    if lacking:
        _LOG.warning("%s: keeps its own draws of %s.", key, "; ".join(lacking.values()))
    _LOG.info(
        "Begins with %d arrays of %s at step %d (%s on %s); the head with its own draws.",
        len(taken),
        workdir,
        other.step,
        other.config.task.name,
        other.dataset.name,
    )
    variables = traverse_util.unflatten_dict({**ours, **taken})
    result: TrainState = host.replace(**variables)
    return result.replace(average=variables) if state.average else result


def _fitting(ours: Flat, there: Flat) -> tuple[dict[tuple[str, ...], Any], dict[Any, str]]:
    """The arrays to take, and messages on others, except of heads, that do not fit."""
    taken, lacking = {}, {}
    for path in sorted({*ours, *there}):
        if path[1] in _OWN:
            continue
        shapes = [flat[path].shape[1:] if path in flat else "absent" for flat in (there, ours)]
        if shapes[0] == shapes[1]:
            taken[path] = there[path]
        else:
            lacking[path] = f"{'/'.join(path[1:])} is {shapes[0]} there and {shapes[1]} here"
    return taken, lacking
