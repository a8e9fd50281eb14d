"""Fresh variables of a network, drawn on the host."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from unnas_jax.spaces.programs import Flat, Path


def shapes(network: nn.Module, size: Sequence[int]) -> dict[Path, jax.ShapeDtypeStruct]:
    """The variables of a network, called as network(inputs, train), for images (H, W, channels)."""
    x = jax.ShapeDtypeStruct((1, *size), jnp.float32)
    tree = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), x)
    flat: dict[Path, jax.ShapeDtypeStruct] = traverse_util.flatten_dict(tree)
    return flat


def uniform_fan_in(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Uniform in +-1 / sqrt(inputs of an output), as this project's networks begin."""
    bound = np.prod(shape[:-1]) ** -0.5
    return rng.uniform(-bound, bound, shape)


def normal_fan_out(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Gaussian of variance 2 / (kernel's pixels * output channels) (He et al., 2015)."""
    return rng.normal(0.0, (2.0 / (np.prod(shape[:-2]) * shape[-1])) ** 0.5, shape)


def normal(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Standard Gaussian."""
    return rng.normal(size=shape)


Kernels = Callable[[np.random.Generator, Sequence[int]], np.ndarray]


def draw(
    wanted: Mapping[Path, Any], rng: np.random.Generator, kernels: Kernels = uniform_fan_in
) -> Flat:
    """Fresh variables: kernels drawn, one after the other by name, scales 1, biases 0.

    Args:
      wanted: shapes by path, as `shapes` gives them.
      rng: of the draws.
      kernels: of convolutions and linear layers, the output channels last.

    Returns:
      float32 arrays; batch norms' running means are 0, variances 1.
    """
    found: Flat = {}
    for path in sorted(wanted):
        shape = tuple(wanted[path].shape)
        if path[-1] == "kernel":
            found[path] = kernels(rng, shape).astype(np.float32)
        else:
            one = path[-1] in ("scale", "var")
            found[path] = np.full(shape, float(one), np.float32)
    return found


def tree(flat: Mapping[Path, Any]) -> dict[str, Any]:
    """Variables as flax takes them."""
    nested: dict[str, Any] = traverse_util.unflatten_dict(flat)
    return nested
