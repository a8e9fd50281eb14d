"""Genotypes: discrete cells of the DARTS space, from alphas, to and from JSON."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.core.registry import nearest
from unnas_jax.spaces.darts.candidates import (
    KINDS,
    Candidates,
    as_json,
    everywhere,
    mask,
    num_edges,
)
from unnas_jax.spaces.darts.operations import BUILDERS

SCHEMA = "unnas_jax.genotype/1"

Pairs = tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Genotype:
    """Two discrete cells.

    Attributes:
      normal, reduce: (operation, input state) pairs, two per node, node by node. States 0 and 1
        are the cell's inputs (the outputs of the cells before it), state 2 + i is node i.
      normal_concat, reduce_concat: the states whose concatenation is the cell's output.
    """

    normal: Pairs
    normal_concat: tuple[int, ...]
    reduce: Pairs
    reduce_concat: tuple[int, ...]

    def __post_init__(self) -> None:
        for kind in ("normal", "reduce"):
            pairs, concat = getattr(self, kind), getattr(self, f"{kind}_concat")
            if not pairs or len(pairs) % 2:
                raise UserError(
                    f"genotype: the {kind} cell has {len(pairs)} (operation, input) pairs; "
                    "give two for every node"
                )
            for k, (operation, source) in enumerate(pairs):
                if operation not in BUILDERS:
                    raise UserError(
                        f"genotype: the {kind} cell's pair {k} names the operation {operation!r}; "
                        f"{nearest(operation, BUILDERS)}use one of {', '.join(BUILDERS)}, or "
                        "register it"
                    )
                if not 0 <= source < k // 2 + 2:
                    raise UserError(
                        f"genotype: the {kind} cell's pair {k} takes state {source}, but node "
                        f"{k // 2} can only take the states 0 to {k // 2 + 1}"
                    )
            states = len(pairs) // 2 + 2
            if not concat or any(not 0 <= state < states for state in concat):
                raise UserError(
                    f"genotype: the {kind} cell's output concatenates the states {list(concat)}; "
                    f"name at least one, all from 0 to {states - 1}"
                )

    def as_dict(self) -> dict[str, Any]:
        """The genotype in the types of JSON."""
        return {
            "normal": [list(pair) for pair in self.normal],
            "normal_concat": list(self.normal_concat),
            "reduce": [list(pair) for pair in self.reduce],
            "reduce_concat": list(self.reduce_concat),
        }

    def __str__(self) -> str:
        """The normal cell, `+`, the reduction cell; see `parse`."""

        def cell(pairs: Pairs, concat: tuple[int, ...]) -> str:
            text = ",".join(f"{operation}:{source}" for operation, source in pairs)
            whole = concat == tuple(range(2, len(pairs) // 2 + 2))
            return text if whole else f"{text}@{'.'.join(map(str, concat))}"

        return f"{cell(self.normal, self.normal_concat)}+{cell(self.reduce, self.reduce_concat)}"


def from_dict(value: Mapping[str, Any]) -> Genotype:
    """The inverse of `Genotype.as_dict`; raises `UserError` for anything that is not a genotype."""
    try:
        return Genotype(
            normal=tuple((str(op), int(source)) for op, source in value["normal"]),
            normal_concat=tuple(int(s) for s in value["normal_concat"]),
            reduce=tuple((str(op), int(source)) for op, source in value["reduce"]),
            reduce_concat=tuple(int(s) for s in value["reduce_concat"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            "genotype: expected the keys normal, normal_concat, reduce, reduce_concat with lists "
            f"of [operation, input] pairs and of states ({type(error).__name__}: {error})"
        ) from error


def is_text(name: str) -> bool:
    """Whether a name is the text of a genotype, see `parse`, rather than that of a file."""
    return "+" in name and ":" in name


def parse(text: str) -> Genotype:
    """The genotype of a text such as `sep_conv_3x3:0,skip_connect:1+max_pool_3x3:0,none:1`.

    Before the plus the normal cell, after it the reduction cell, each the `operation:input` pairs
    of its nodes. `@2.4` behind a cell names the states that its output concatenates where they
    are not all of its nodes. It is what `str` gives.

    Raises:
      UserError: it is no such text, or not a genotype.
    """

    def cell(half: str) -> tuple[Pairs, tuple[int, ...]]:
        words, at, states = half.partition("@")
        pairs = tuple(
            (operation.strip(), int(source))
            for operation, _, source in (word.partition(":") for word in words.split(","))
        )
        if at:
            return pairs, tuple(int(state) for state in states.split("."))
        return pairs, tuple(range(2, len(pairs) // 2 + 2))

    try:
        normal, reduce = (cell(half) for half in text.split("+"))
    except ValueError as error:
        raise UserError(
            f"genotype {text!r}: expected the (operation, input) pairs of a normal and a reduction "
            "cell, as in sep_conv_3x3:0,skip_connect:1+max_pool_3x3:0,skip_connect:1"
        ) from error
    return Genotype(*normal, *reduce)


def softmax(alphas: np.ndarray, operations: Sequence[Sequence[str]] | None = None) -> np.ndarray:
    """The weights that alphas give the operations of every edge, in float64.

    Args:
      alphas: (..., edges, O), see `candidates.mask`.
      operations: of every edge; None: all edges have O.

    Returns:
      An array of the same shape, 0 where an edge has no operation.
    """
    alphas = np.asarray(alphas, np.float64)
    if operations is not None:
        alphas = np.where(mask(operations), alphas, -np.inf)
    weights: np.ndarray = special.softmax(alphas, axis=-1)
    return weights


def _strongest_of_cell(
    weights: np.ndarray, operations: Sequence[Sequence[str]], nodes: int
) -> Pairs:
    pairs: list[tuple[str, int]] = []
    rows = iter(zip(weights.tolist(), operations, strict=True))
    for node in range(nodes):
        best = []
        for source in range(node + 2):
            row, names = next(rows)
            chosen = [(w, name) for w, name in zip(row, names, strict=False) if name != "none"]
            # The first of the strongest, as of the edges below.
            best.append((*max(chosen, key=lambda found: found[0]), source))
        best.sort(key=lambda found: -found[0])
        pairs += [(name, source) for _, name, source in best[:2]]
    return tuple(pairs)


def strongest(
    normal: np.ndarray, reduce: np.ndarray, operations: Candidates | None = None
) -> Genotype:
    """The discrete cells of operation weights (DARTS, section 2.4).

    Every node keeps the two incoming edges whose strongest operation other than `none` has the
    largest weight, and on each that operation; the best edge comes first.

    Args:
      normal, reduce: weights of shape (edges, operations), edges in the order of
        `candidates.edges`.
      operations: of every edge; None: those of DARTS.
    """
    nodes = next(n for n in range(1, 64) if num_edges(n) == len(normal))
    names = everywhere(nodes) if operations is None else operations
    concat = tuple(range(2, nodes + 2))
    return Genotype(
        normal=_strongest_of_cell(np.asarray(normal), names["normal"], nodes),
        normal_concat=concat,
        reduce=_strongest_of_cell(np.asarray(reduce), names["reduce"], nodes),
        reduce_concat=concat,
    )


def _weights(
    normal: np.ndarray, reduce: np.ndarray, operations: Candidates | None
) -> dict[str, np.ndarray]:
    names: Mapping[str, Any] = operations or dict.fromkeys(KINDS)
    return {
        kind: softmax(alphas, names[kind])
        for kind, alphas in zip(KINDS, (normal, reduce), strict=True)
    }


def discretise(
    normal: np.ndarray, reduce: np.ndarray, operations: Candidates | None = None
) -> Genotype:
    """The discrete cells that a search ends in: the `strongest` of the softmax of its alphas.

    Args:
      normal, reduce: alphas of shape (edges, operations), edges in the order of
        `candidates.edges`.
      operations: of every edge; None: those of DARTS.
    """
    return strongest(**_weights(normal, reduce, operations), operations=operations)


def document_of(
    cells: Genotype,
    weights: Mapping[str, np.ndarray],
    provenance: Mapping[str, Any],
    operations: Candidates | None = None,
) -> dict[str, Any]:
    """The content of a `genotype.json`: discrete cells and where they came from.

    Args:
      cells: what a search ended in.
      weights: of the operations, `normal` and `reduce`, each (edges, operations).
      provenance: what else to tell.
      operations: of every edge; None: those of DARTS. They become the labels of the weights: names
        for all edges or, by kind of cell, for every edge.
    """
    names = everywhere(nodes_of(cells.normal)) if operations is None else operations
    return {
        "schema": SCHEMA,
        "space": "darts",
        "operations": as_json(names),
        "genotype": cells.as_dict(),
        "alphas_softmax": {
            kind: [
                row[: len(labels)].round(6).tolist()
                for row, labels in zip(np.asarray(weights[kind]), names[kind], strict=True)
            ]
            for kind in KINDS
        },
        **provenance,
    }


def document(
    normal: np.ndarray,
    reduce: np.ndarray,
    provenance: Mapping[str, Any],
    operations: Candidates | None = None,
) -> dict[str, Any]:
    """The content of the `genotype.json` of alphas; see `discretise` and `document_of`."""
    weights = _weights(normal, reduce, operations)
    cells = strongest(**weights, operations=operations)
    return document_of(cells, weights, provenance, operations)


def load(path: str | os.PathLike[str]) -> tuple[Genotype, dict[str, Any]]:
    """Reads a `genotype.json`; returns the genotype and the whole document.

    Raises:
      UserError: the file is missing, is not JSON, has another schema or holds no valid cells.
    """
    try:
        value = files.read_json(path)
    except OSError as error:
        raise UserError(f"genotype: cannot read {os.fspath(path)}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"genotype: {os.fspath(path)} is not JSON ({error})") from error
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA:
        raise UserError(
            f"genotype: {os.fspath(path)} has the schema {schema!r}; this version reads {SCHEMA!r}"
        )
    return from_dict(value.get("genotype", {})), value


def nodes_of(pairs: Sequence[tuple[str, int]]) -> int:
    """The number of nodes of a discrete cell."""
    return len(pairs) // 2
