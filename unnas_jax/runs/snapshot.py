"""A snapshot of a run's state: NumPy arrays by name, their digest, whether they are finite."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from unnas_jax.runs.retention import RANKING

State = TypeVar("State")

_DIGEST = "digest"

LAYOUT = "layout"
"""The key of the `layout` of the state in a signed position."""


def _named(tree: Any) -> list[tuple[str, Any]]:
    """A tree's arrays by their path, in order, for any types of containers."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = [(jax.tree_util.keystr(p, simple=True, separator="/"), leaf) for p, leaf in leaves]
    return sorted(named, key=lambda pair: pair[0])


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of a tree's arrays by their path."""
    return {name: tuple(leaf.shape) for name, leaf in _named(tree) if hasattr(leaf, "shape")}


def on_host(state: State) -> State:
    """A state in NumPy arrays; those on devices are copied, so that no step overwrites them."""
    for leaf in jax.tree.leaves(state):
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    host: State = jax.tree.map(
        lambda leaf: leaf if isinstance(leaf, np.ndarray) else np.array(leaf), state
    )
    return host


def first_not_finite(state: Any) -> str | None:
    """The path of the first array on the host that holds NaN or an infinite value."""
    for name, leaf in _named(state):
        if jax.dtypes.issubdtype(leaf.dtype, np.inexact) and not np.isfinite(leaf).all():
            return name
    return None


def _bytes(state: Any) -> Iterator[Any]:
    for name, leaf in _named(state):
        yield f"{name} {leaf.dtype} {leaf.shape}\n".encode()
        yield np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)


def layout(state: Any) -> str:
    """A digest of the names and shapes of a state's arrays."""
    return hashlib.sha256(repr(sorted(shapes(state).items())).encode()).hexdigest()


def signed(state: Any, position: Mapping[str, Any]) -> dict[str, Any]:
    """A position with digests, by which `verified` notices any changed bit of it or of the state.

    SHA-256 takes 0.8 s for every GB of the state (an AMD EPYC core with instructions for it), once
    at a save and once at a restore.
    """
    position = json.loads(json.dumps({**position, LAYOUT: layout(state)}))
    digest = hashlib.sha256(json.dumps(position, sort_keys=True).encode())
    for part in _bytes(state):
        digest.update(part)
    return {**position, _DIGEST: digest.hexdigest()}


def verified(state: Any, progress: Mapping[str, Any]) -> dict[str, Any]:
    """The position as it was saved; one that never had a digest passes.

    Raises:
      ValueError: it or the state, on the host, is not what was saved.
    """
    position = {key: value for key, value in progress.items() if key not in (_DIGEST, LAYOUT)}
    if _DIGEST in progress and signed(state, position) != dict(progress):
        raise ValueError("its values are not those that were saved: the digest differs")
    return {key: value for key, value in position.items() if key != RANKING}


def placed(like: Any, value: np.ndarray) -> Any:
    """A value on the devices of the array that it replaces."""
    place = getattr(like, "sharding", None)
    if place is None:
        return value
    return jax.make_array_from_process_local_data(place, value, value.shape)
