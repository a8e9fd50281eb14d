"""Weights of operations from alphas: functions of any space whose supernet mixes operations."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts.candidates import Candidates

Alphas = Mapping[str, jax.Array]
"""By kind of cell, float32 (edges, operations), see `candidates.mask`."""


def drawn(key: jax.Array, scale: float, operations: Candidates) -> dict[str, jax.Array]:
    """Alphas drawn from scale * normal, float32 (edges, operations) for every kind of cell.

    They are 0 where an edge has no operation.
    """
    alphas = {}
    kinds = sorted(operations)
    for kind, own in zip(kinds, jax.random.split(key, len(kinds)), strict=True):
        used = candidates.mask(operations[kind])
        values = scale * jax.random.normal(own, used.shape, jnp.float32)
        alphas[kind] = values if used.all() else jnp.where(used, values, 0.0)
    return alphas


def softmax(alphas: Alphas, operations: Candidates | None = None) -> dict[str, jax.Array]:
    """The weights of DARTS (equation 2): on every edge the softmax over its operations.

    Args:
      alphas: by kind of cell.
      operations: of every edge; None: all edges have as many as the alphas.
    """

    def of_kind(kind: str, values: jax.Array) -> jax.Array:
        used = None if operations is None else candidates.mask(operations[kind])
        return jax.nn.softmax(values, axis=-1, where=None if used is None or used.all() else used)

    return {kind: of_kind(kind, values) for kind, values in alphas.items()}


def sigmoid(alphas: Alphas, operations: Candidates) -> dict[str, jax.Array]:
    """The weights of FairDARTS: the sigmoid of every operation's alpha, 0 where there is none."""
    used = {kind: candidates.mask(operations[kind]) for kind in operations}
    return {kind: jax.nn.sigmoid(alphas[kind]) * used[kind] for kind in operations}
