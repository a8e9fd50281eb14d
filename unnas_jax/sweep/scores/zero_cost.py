"""Scores of an untrained network without labels; pure functions, higher is better.

An `Apply` maps variables and images to a network's outputs and the batch norms' new statistics.
Give `applied(network)`; of a `unnas_jax.spaces.programs.Program`, which many cells share.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.sweep.scores import relus

Variables = Mapping[str, Any]
Apply = Callable[[Variables, jax.Array, bool], tuple[jax.Array, Any]]


def applied(network: nn.Module) -> Apply:
    """A network of flax, called as network(inputs, train), which returns outputs or a pair.

    This project's networks answer with a pair; its first entry counts.
    """

    def apply(variables: Variables, x: jax.Array, train: bool) -> tuple[jax.Array, Any]:
        outputs, state = network.apply(variables, x, train, mutable=["batch_stats"])
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        return first, state.get("batch_stats", {})

    return apply


def kernels(params: Any) -> list[jax.Array]:
    """The weights of convolutions and linear layers."""
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    return [leaf for path, leaf in flat if getattr(path[-1], "key", None) == "kernel"]


def _replaced(tree: Any, values: Mapping[str, Callable[[jax.Array], jax.Array]]) -> Any:
    """A tree whose leaves of some names go through functions."""

    def new(path: Any, leaf: jax.Array) -> jax.Array:
        return values.get(getattr(path[-1], "key", ""), lambda x: x)(leaf)

    return jax.tree_util.tree_map_with_path(new, tree)


def synflow(apply: Apply, variables: Variables, x: jax.Array) -> jax.Array:
    """Synaptic flow (Tanaka et al., 2020): the sum of |w dR/dw| over all kernels.

    R is the sum of the outputs for one image of ones, with the absolute values of the kernels, no
    biases and no batch norm (running mean 0, variance 1: a factor of 1 to five digits). L linear
    layers have L * 1' |W_L| ... |W_1| 1. The sum overflows float32 for deep networks: give a
    network and variables of float64.

    Args:
      apply: the network.
      variables: of it; only the kernels matter.
      x: (N, H, W, channels), of which only the shape and type matter.
    """
    plain = {"bias": jnp.zeros_like, "scale": jnp.ones_like}
    still = {"mean": jnp.zeros_like, "var": jnp.ones_like}
    params = _replaced(variables["params"], {"kernel": jnp.abs, **plain})
    own = {**variables, "batch_stats": _replaced(variables.get("batch_stats", {}), still)}
    ones = jnp.ones((1, *x.shape[1:]), x.dtype)

    def total(params: Any) -> jax.Array:
        return jnp.sum(apply({**own, "params": params}, ones, False)[0])

    gradient = jax.grad(total)(params)
    pairs = zip(kernels(params), kernels(gradient), strict=True)
    return sum((jnp.sum(jnp.abs(w * g)) for w, g in pairs), jnp.zeros((), x.dtype))


def naswot(apply: Apply, variables: Variables, x: jax.Array) -> jax.Array:
    """The log of |det K|, of how alike images look to the rectifiers (Mellor et al., 2021).

    K counts for two images the rectifiers that are on for both or off for both, by the batch's own
    statistics. -inf if two images look the same to all of them.
    """

    def alike(inputs: jax.Array) -> jax.Array:
        on = (inputs > 0).reshape(len(inputs), -1).astype(jnp.float32)
        off = 1.0 - on
        return on @ on.T + off @ off.T

    kernel = relus.visited(lambda variables, x: apply(variables, x, True), alike)(variables, x)
    return jnp.linalg.slogdet(kernel)[1]


def correlation_score(rows: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """-sum(log(v + k) + 1 / (v + k)) over the eigenvalues v of the rows' correlations; k=1e-5.

    Constant rows count as alike to all, the worst there is.
    """
    centred = rows - jnp.mean(rows, axis=1, keepdims=True)
    centred = centred / jnp.maximum(jnp.max(jnp.abs(centred)), jnp.finfo(rows.dtype).tiny)
    covariance = centred @ centred.T
    deviation = jnp.sqrt(jnp.diag(covariance))
    product = deviation[:, None] * deviation[None]
    correlations = jnp.where(product > 0, covariance / jnp.where(product > 0, product, 1.0), 1.0)
    # Rounding can make an eigenvalue of 0 negative.
    values = jnp.maximum(jnp.linalg.eigvalsh(correlations), 0.0) + epsilon
    return -jnp.sum(jnp.log(values) + 1.0 / values)


def jacob_cov(apply: Apply, variables: Variables, x: jax.Array) -> jax.Array:
    """How little the images' gradients correlate (Mellor et al., 2020, first version).

    The gradients of the sum of the outputs with respect to each image, by the batch's statistics;
    then `correlation_score`.
    """
    jacobian = jax.grad(lambda x: jnp.sum(apply(variables, x, True)[0]))(x)
    return correlation_score(jacobian.reshape(len(x), -1))


def _batch_variances(apply: Apply, variables: Variables, x: jax.Array) -> Any:
    """The variances of a batch that batch norms computed, for any momentum."""

    def updated(start: float) -> Any:
        fill = {"var": lambda leaf: jnp.full_like(leaf, start)}
        own = {**variables, "batch_stats": _replaced(variables["batch_stats"], fill)}
        return apply(own, x, True)[1]

    # new = momentum * old + (1 - momentum) * found.
    none, one = updated(0.0), updated(1.0)
    return jax.tree.map(lambda low, high: low / (1.0 - (high - low)), none, one)


def zen(
    apply: Apply, variables: Variables, x: jax.Array, other: jax.Array, step: float = 0.01
) -> jax.Array:
    """The Zen score (Lin et al., 2021): how strongly features answer to noise, on a log scale.

    log mean_b sum |f(x) - f(x + step * other)| + sum over batch norms of log sqrt(mean variance),
    which makes up for the divisions of the norms.

    Args:
      apply: gives the features f, before pooling and classifier.
      variables: kernels from N(0, 1).
      x, other: Gaussian noise (N, H, W, channels).
      step: of the perturbation.
    """
    first, second = (apply(variables, inputs, True)[0] for inputs in (x, x + step * other))
    size = jnp.mean(jnp.sum(jnp.abs(first - second).reshape(len(x), -1), axis=1))
    variances = _batch_variances(apply, variables, x)
    flat, _ = jax.tree_util.tree_flatten_with_path(variances)
    norms = [leaf for path, leaf in flat if getattr(path[-1], "key", None) == "var"]
    # Layers of a program for many cells that this cell lacks get zeros.
    logs = [jnp.where(jnp.any(leaf > 0), 0.5 * jnp.log(jnp.mean(leaf)), 0.0) for leaf in norms]
    return jnp.log(size) + sum(logs, jnp.zeros(()))
