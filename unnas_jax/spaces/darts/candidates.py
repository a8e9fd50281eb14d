"""The candidate operations of every edge of a supernet, as a config names them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from unnas_jax.config.options import Config
from unnas_jax.config.sections import SupernetSection
from unnas_jax.core.errors import UserError
from unnas_jax.core.registry import nearest
from unnas_jax.spaces.darts.operations import BUILDERS

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The candidates of DARTS on every edge, in the order of the alphas' last axis (Liu et al.)."""

MAX_NODES = 12
"""Of a cell: DARTS has 4, the largest published cell 5; the cost grows with the square."""

KINDS = ("normal", "reduce")
"""The two kinds of cell."""

Candidates = Mapping[str, tuple[tuple[str, ...], ...]]
"""By kind of cell, for every edge in the order of `edges`, the names of its operations."""

_KEY = "config.network.operations"


def num_edges(nodes: int) -> int:
    """Edges of a cell with `nodes` nodes: 14 for the 4 of DARTS."""
    return nodes * (nodes + 3) // 2


def nodes_of(count: int) -> int:
    """The nodes of a cell with so many edges."""
    return next(nodes for nodes in range(1, MAX_NODES + 1) if num_edges(nodes) == count)


def edges(nodes: int) -> list[tuple[int, int]]:
    """All (source state, node) pairs of a cell, in the order of the alphas' first axis.

    States 0 and 1 are the cell's inputs, state 2 + i is node i; edges are listed node by node.
    """
    return [(source, node) for node in range(nodes) for source in range(node + 2)]


def everywhere(nodes: int, names: Sequence[str] = OPERATIONS) -> Candidates:
    """The same operations on all edges, by default those of DARTS."""
    return dict.fromkeys(KINDS, (tuple(names),) * num_edges(nodes))


def parse(value: Any, nodes: int, key: str = _KEY) -> Candidates:
    """The candidates that a value of `network.operations` stands for.

    Args:
      value: a list of names for all edges, empty for those of DARTS; or under the keys `normal` and
        `reduce` such a list for each kind of cell, or a list of lists, one for each edge.
      nodes: of a cell.
      key: the value's name, for messages.

    Raises:
      UserError: it is none of these, or has lists for another number of edges. Whether operations
        of these names exist is for `check`: files outlive registrations.
    """
    if not isinstance(value, Mapping):
        return dict.fromkeys(KINDS, _of_kind(value, nodes, key))
    if set(value) != set(KINDS):
        raise UserError(
            f"{key}: has the keys {', '.join(map(str, value)) or 'none'}; give one list for all "
            "edges, or normal and reduce"
        )
    return {kind: _of_kind(value[kind], nodes, f"{key}.{kind}") for kind in KINDS}


def _of_kind(value: Any, nodes: int, key: str) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UserError(f"{key}={value!r}: give a list of operations")
    if all(isinstance(name, str) for name in value):
        return (tuple(value) or OPERATIONS,) * num_edges(nodes)
    for names in value:
        lists = isinstance(names, Sequence) and not isinstance(names, str)
        if not lists or not all(isinstance(name, str) for name in names):
            raise UserError(f"{key}: {names!r} is not the list of an edge's operations")
    if len(value) != num_edges(nodes):
        raise UserError(
            f"{key}: has lists for {len(value)} edges, but a cell of {nodes} nodes has "
            f"{num_edges(nodes)}; give one for each, node by node, or change network.nodes"
        )
    return tuple(tuple(names) for names in value)


def check(candidates: Candidates) -> None:
    """Raises `UserError` for an unknown operation, and for an edge without a choice."""
    for kind, number, names in _lists(candidates):
        where = f"edge {number} of the {kind} cell"
        for name in names:
            if name not in BUILDERS:
                raise UserError(
                    f"{_KEY}: {where} has {name!r}; {nearest(name, BUILDERS)}use some of "
                    f"{', '.join(sorted(BUILDERS))}, or register it"
                )
        if len(set(names)) < len(names):
            raise UserError(f"{_KEY}: {where} names an operation twice: {', '.join(names)}")
        if not set(names) - {"none"}:
            raise UserError(
                f"{_KEY}: {where} has {'only none' if names else 'no operation'}, so that no cell "
                "can come of it; add an operation"
            )


def _lists(candidates: Candidates) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    for kind in KINDS:
        for number, names in enumerate(candidates[kind]):
            yield kind, number, names


def of_network(section: Config) -> Candidates:
    """The candidates of the section `network` of a search's config."""
    section = SupernetSection.of(section)
    return parse(section.operations, section.nodes)


def are_darts(candidates: Candidates) -> bool:
    """Whether every edge has the eight operations of DARTS, in their order."""
    return all(names == OPERATIONS for _, _, names in _lists(candidates))


def mask(edges_of_kind: Sequence[Sequence[str]]) -> np.ndarray:
    """Which entries of the alphas of a kind of cell stand for an operation: bool (E, O).

    O is the largest number of operations that an edge has; edges with fewer leave the last unused.
    """
    counts = np.array([len(names) for names in edges_of_kind])
    mask: np.ndarray = np.arange(counts.max()) < counts[:, None]
    return mask


def equal_weights(edges_of_kind: Sequence[Sequence[str]]) -> np.ndarray:
    """The weights of operations on edges without preference, (E, O), see `mask`."""
    used = mask(edges_of_kind)
    weights: np.ndarray = used / used.sum(axis=1, keepdims=True)
    return weights


def chosen_weights(
    pairs: Sequence[tuple[str, int]],
    softmax: Sequence[Sequence[float]] | None,
    operations: Sequence[Sequence[str]] | None = None,
) -> list[float | None]:
    """The softmax weight of every chosen operation; None where none is known.

    Args:
      pairs: (operation, input state) pairs of a cell.
      softmax: weights of shape (edges, operations) as in `genotype.json`, or None.
      operations: of every edge; None: those of DARTS.

    Raises:
      UserError: the weights are of another cell.
    """
    if softmax is None:
        return [None] * len(pairs)
    nodes = len(pairs) // 2
    index = {edge: e for e, edge in enumerate(edges(nodes))}
    names = everywhere(nodes)["normal"] if operations is None else operations
    try:
        numbers = [index[source, k // 2] for k, (_, source) in enumerate(pairs)]
        for number in numbers:
            if len(softmax[number]) != len(names[number]):
                raise ValueError(
                    f"{len(softmax[number])} weights on an edge of {len(names[number])} operations"
                )
        return [
            # The threshold of a search gives `none` also where it was no candidate.
            float(softmax[number][names[number].index(operation)])
            if operation != "none" or "none" in names[number]
            else None
            for number, (operation, _) in zip(numbers, pairs, strict=True)
        ]
    except (IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"genotype: alphas_softmax does not fit its cells ({error}); remove it or write it anew"
        ) from error


def as_json(candidates: Candidates) -> Any:
    """The shortest value that `parse` takes, in the types of JSON; all names are spelled out."""
    first = candidates["normal"][0]
    if all(names == first for _, _, names in _lists(candidates)):
        return list(first)
    return {kind: [list(names) for names in candidates[kind]] for kind in KINDS}
