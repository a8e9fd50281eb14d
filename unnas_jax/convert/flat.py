"""A network's variables as flat names and arrays: as here, or in the names and layouts of PyTorch.

PyTorch's names follow from the paths here; modules whose parts have the same names as here fit
them:

    params cell_0 op_2 depthwise_0 conv kernel -> cell_0.op_2.depthwise_0.weight
    batch_stats cell_0 op_2 bn_0 mean          -> cell_0.op_2.bn_0.running_mean
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}

AUXILIARY = "auxiliary"
"""The module of a training that its evaluation does not use, and exports leave out."""


def _leaves(variables: Mapping[str, Any]) -> dict[tuple[str, ...], np.ndarray]:
    flat = traverse_util.flatten_dict(dict(variables))
    return {path: np.asarray(leaf) for path, leaf in flat.items() if path[1] != AUXILIARY}


def as_here(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays by their paths, joined by dots: `params.cell_0.op_2.bn_0.scale`."""
    return {".".join(path): np.ascontiguousarray(leaf) for path, leaf in _leaves(variables).items()}


def nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The inverse of `as_here`."""
    tree: dict[str, Any] = traverse_util.unflatten_dict(
        {tuple(name.split(".")): array for name, array in arrays.items()}
    )
    return tree


def as_in_torch(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays by PyTorch's names: kernels (outs, ins / groups, h, w), matrices (outs, ins)."""
    result = {}
    for (_, *parts, leaf), array in _leaves(variables).items():
        if parts[-1] == "conv":  # Convolutions here are a module within a module.
            parts = parts[:-1]
        if leaf == "kernel":
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        result[".".join([*parts, _LEAVES.get(leaf, leaf)])] = np.ascontiguousarray(array)
    return result
