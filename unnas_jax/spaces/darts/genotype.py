"""Genotypes: discrete cells of the DARTS space, from alphas, to and from JSON."""

import ast
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy  # Loads its parts when they are first used.

from unnas_jax.core import reading
from unnas_jax.core.errors import UserError
from unnas_jax.core.registry import nearest
from unnas_jax.spaces.darts import candidates, graphs
from unnas_jax.spaces.darts.candidates import (
    KINDS,
    MAX_NODES,
    Candidates,
    as_json,
    everywhere,
    mask,
)
from unnas_jax.spaces.darts.operations import BUILDERS
from unnas_jax.spaces.graph import Graph, Operations, Softmax

SCHEMA = "unnas_jax.genotype/1"

_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")

# Of a genotype.json.
_SHAPE = {
    "schema": str,
    "genotype": object,
    "alphas_softmax?": (None, {"normal": [[float]], "reduce": [[float]]}),
    "space?": str,
    "dataset?": (None, str),
    "task?": (None, str),
    "seed?": int,
    "step?": int,
    "epoch?": float,
    "finished?": bool,
    "warnings?": [str],
    "versions?": {str: str},
}

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
            if not pairs or len(pairs) % 2 or len(pairs) > 2 * MAX_NODES:
                raise UserError(
                    f"genotype: the {kind} cell has {len(pairs)} (operation, input) pairs; "
                    f"give two for every node, of which there may be {MAX_NODES}"
                )
            for k, (operation, source) in enumerate(pairs):
                if operation not in BUILDERS:
                    raise UserError(
                        f"genotype: the {kind} cell's pair {k} names the operation "
                        f"{reading.shown(operation)}; {nearest(operation, BUILDERS)}use one of "
                        f"{', '.join(BUILDERS)}, or register it"
                    )
                if not 0 <= source < k // 2 + 2:
                    raise UserError(
                        f"genotype: the {kind} cell's pair {k} takes state {source}, but node "
                        f"{k // 2} can only take the states 0 to {k // 2 + 1}"
                    )
            states = len(pairs) // 2 + 2
            if not concat or any(not 0 <= state < states for state in concat):
                raise UserError(
                    f"genotype: the {kind} cell's output concatenates the states "
                    f"{reading.shown(list(concat)) if len(concat) > 20 else list(concat)}; "
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

    def graphs(
        self, softmax: Softmax | None = None, operations: Operations | None = None
    ) -> list[Graph]:
        """The graphs of both cells; see `graph.Drawable`."""
        return [
            graphs.of_kind(k, getattr(self, k), getattr(self, f"{k}_concat"), softmax, operations)
            for k in KINDS
        ]

    def __str__(self) -> str:
        """The normal cell, `+`, the reduction cell; see `parse`."""

        def cell(pairs: Pairs, concat: tuple[int, ...]) -> str:
            text = ",".join(f"{operation}:{source}" for operation, source in pairs)
            by_default = concat == tuple(range(2, len(pairs) // 2 + 2))
            return text if by_default else f"{text}@{'.'.join(map(str, concat))}"

        return f"{cell(self.normal, self.normal_concat)}+{cell(self.reduce, self.reduce_concat)}"


def _cell(value: Mapping[str, Any], kind: str) -> tuple[Pairs, tuple[int, ...]]:
    """The fields of one cell; raises `ValueError` for other types, which int() would round."""
    pairs, concat = value[kind], value[f"{kind}_concat"]
    for items in (pairs, concat):
        if not isinstance(items, list | tuple):
            raise ValueError(f"{reading.shown(items)} is no list")
    for pair in pairs:
        if not isinstance(pair, list | tuple) or [type(item) for item in pair] != [str, int]:
            raise ValueError(f"{reading.shown(pair)} is no pair")
    if any(type(state) is not int for state in concat):
        raise ValueError("a state is no number")
    return tuple((operation, source) for operation, source in pairs), tuple(concat)


def from_dict(value: Mapping[str, Any]) -> Genotype:
    """The inverse of `Genotype.as_dict`; raises `UserError` for anything that is not a genotype."""
    try:
        return Genotype(*_cell(value, "normal"), *_cell(value, "reduce"))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            "genotype: expected the keys normal, normal_concat, reduce, reduce_concat with lists "
            f"of [operation, input] pairs and of states ({type(error).__name__}: {error})"
        ) from error


# The form that DARTS prints and that is in its genotypes.py, under any name.
_PASTED = re.compile(r"\s*(?:\w+\s*=\s*)?(?:\w+\.)*Genotype\s*\(")
_LONGEST = 2**14  # Characters of a text.


def is_text(name: str) -> bool:
    """Whether a name is the text of a genotype, see `parse`, rather than that of a file."""
    return bool(_PASTED.match(name)) or ("+" in name and ":" in name)


def _literal(node: ast.expr) -> Any:
    """The list of a literal, or of a range of small numbers; nothing else is a field's value."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        bounds = [ast.literal_eval(argument) for argument in node.args]
        if any(type(bound) is not int or bound > 1000 for bound in bounds):
            raise ValueError("a range of states is too long")
        return list(range(*bounds))
    return ast.literal_eval(node)


def _pasted(text: str) -> dict[str, Any]:
    """The fields of `Genotype(normal=[...], normal_concat=range(2, 6), ...)`, read, never run.

    Raises:
      ValueError: it is something else.
    """
    # No operators: Python's parser follows chains of them too deep; it bounds brackets itself.
    if not re.fullmatch(r"[\w\s.,=()\[\]'\"]*", text):
        raise ValueError("it has other signs than those of lists, names and numbers")
    call = ast.parse(text[text.index("Genotype") :].strip(), mode="eval").body
    if not isinstance(call, ast.Call) or len(call.args) > len(_FIELDS):
        raise ValueError("it is not one Genotype(...)")
    fields = dict(zip(_FIELDS, call.args, strict=False))
    fields |= {str(keyword.arg): keyword.value for keyword in call.keywords}
    return {name: _literal(node) for name, node in fields.items()}


def parse(text: str) -> Genotype:
    """The genotype of a text such as `sep_conv_3x3:0,skip_connect:1+max_pool_3x3:0,none:1`.

    Before the plus the normal cell, after it the reduction cell, each the `operation:input` pairs
    of its nodes. `@2.4` behind a cell names the states that its output concatenates where they
    are not all of its nodes. It is what `str` gives. What DARTS prints, `Genotype(normal=[(...),
    ...], normal_concat=range(2, 6), reduce=..., reduce_concat=...)`, is understood too.

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
        if len(text) > _LONGEST:
            raise ValueError("it is too long")
        if _PASTED.match(text):
            return from_dict(_pasted(text))
        normal, reduce = (cell(half) for half in text.split("+"))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise UserError(
            f"genotype {reading.shown(text)}: expected the (operation, input) pairs of a normal "
            "and a reduction cell, as in sep_conv_3x3:0,skip_connect:1+max_pool_3x3:0,"
            "skip_connect:1, or Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=[...], "
            "reduce=[...], reduce_concat=[...])"
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
    weights: np.ndarray = scipy.special.softmax(alphas, axis=-1)
    return weights


def best_operations(
    weights: np.ndarray, operations: Sequence[Sequence[str]], nodes: int
) -> Iterator[list[tuple[float, str, int]]]:
    """For each node, its edges as (weight, operation, source): the strongest but `none`.

    The first one, if several have the same weight.
    """
    rows = iter(zip(weights.tolist(), operations, strict=True))
    for node in range(nodes):
        best = []
        for source in range(node + 2):
            row, names = next(rows)
            chosen = [(w, name) for w, name in zip(row, names, strict=False) if name != "none"]
            best.append((*max(chosen, key=lambda found: found[0]), source))
        yield best


def _strongest_of_cell(
    weights: np.ndarray, operations: Sequence[Sequence[str]], nodes: int, threshold: float
) -> tuple[Pairs, tuple[int, ...]]:
    found: list[tuple[float, str, int]] = []
    for best in best_operations(weights, operations, nodes):
        # Of edges with the same weight the first come first.
        found += sorted(best, key=lambda found: -found[0])[:2]
    least = min(threshold, max(weight for weight, *_ in found))
    kept = [(name if weight >= least else "none", source) for weight, name, source in found]
    names = [name for name, _ in kept]
    alive = [node for node in range(nodes) if names[2 * node : 2 * node + 2] != ["none"] * 2]
    return tuple(kept), tuple(node + 2 for node in alive)


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
    return strongest_above({"normal": normal, "reduce": reduce}, 0.0, operations)


def strongest_above(
    weights: Mapping[str, np.ndarray], threshold: float, operations: Candidates | None = None
) -> Genotype:
    """The `strongest` cells without operations of less weight than a threshold (FairDARTS).

    `none` takes their place, and nodes without operations are left out of the output. A cell that
    would have no operation at all keeps its strongest one.
    """
    normal, reduce = (weights[kind] for kind in KINDS)
    nodes = candidates.nodes_of(len(normal))
    names = everywhere(nodes) if operations is None else operations
    return Genotype(
        *_strongest_of_cell(np.asarray(normal), names["normal"], nodes, threshold),
        *_strongest_of_cell(np.asarray(reduce), names["reduce"], nodes, threshold),
    )


def discretise(
    normal: np.ndarray, reduce: np.ndarray, operations: Candidates | None = None
) -> Genotype:
    """The discrete cells that a search ends in: the `strongest` of the softmax of its alphas.

    Args:
      normal, reduce: alphas of shape (edges, operations), edges in the order of
        `candidates.edges`.
      operations: of every edge; None: those of DARTS.
    """
    names: Mapping[str, Any] = operations or dict.fromkeys(KINDS)
    weights = softmax(normal, names["normal"]), softmax(reduce, names["reduce"])
    return strongest(*weights, operations)


def bare_document(cells: Genotype) -> dict[str, Any]:
    """The content of a `genotype.json` with cells alone."""
    return {"schema": SCHEMA, "space": "darts", "genotype": cells.as_dict()}


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
        **bare_document(cells),
        "operations": as_json(names),
        # The first version's key; in DARTS the weights are the softmax of the alphas.
        "alphas_softmax": {
            kind: [
                row[: len(labels)].round(6).tolist()
                for row, labels in zip(np.asarray(weights[kind]), names[kind], strict=True)
            ]
            for kind in KINDS
        },
        **provenance,
    }


def load(path: str | os.PathLike[str]) -> tuple[Genotype, dict[str, Any]]:
    """Reads a `genotype.json`, or a file with the text of a genotype (see `parse`).

    Returns:
      the genotype and the whole document, of a text one with the genotype alone.

    Raises:
      UserError: the file is missing, is not JSON, has another schema or holds no valid cells.
    """
    name, content = os.fspath(path), reading.user_text(path, "genotype", kind="JSON")
    if is_text(content) and not content.lstrip().startswith("{"):
        genotype = parse(content)
        return genotype, bare_document(genotype)
    value = reading.document(path, object, what="genotype", content=content)
    document = value if isinstance(value, dict) else {}
    if (space := document.get("space", "darts")) != "darts":
        raise UserError(
            f"genotype: {name} holds a cell of the space {reading.shown(space)}; set "
            f"config.network.space={reading.shown(space)}"
        )
    schema = document.get("schema")
    if schema != SCHEMA:
        raise UserError(
            f"genotype: {name} has the schema {reading.shown(schema)}; this version reads "
            f"{SCHEMA!r}"
        )
    try:
        genotype = from_dict(value.get("genotype", {}))
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    remedy = "remove it, and the command that wrote it writes it again"
    reading.document(path, _SHAPE, what="genotype", content=content, remedy=remedy)
    weights = value.get("alphas_softmax")
    for kind, pairs in (("normal", genotype.normal), ("reduce", genotype.reduce)):
        if not weights:
            break
        try:
            labels = candidates.parse(value.get("operations", ()), nodes_of(pairs), "operations")
        except UserError as error:
            raise UserError(f"genotype: {name} is damaged: {error}; {remedy}") from error
        if [len(row) for row in weights[kind]] != [len(names) for names in labels[kind]]:
            words = f"alphas_softmax.{kind} is of another cell"
            raise UserError(f"genotype: {name} is damaged: {words}; {remedy}")
    return genotype, value


def nodes_of(pairs: Sequence[tuple[str, int]]) -> int:
    """The number of nodes of a discrete cell."""
    return len(pairs) // 2
