"""Cells of NAS-Bench-201: six edges, their text, what makes two the same, all of them, samples.

A cell (Dong and Yang, 2020) has four nodes, the first of which is its input and the last its
output. From every node an edge with one of five operations leads to every later node, which sums
what enters it: 5^6 = 15,625 cells.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from unnas_jax.core import reading
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.graph import Graph, Operations, Softmax

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""The benchmark's names in the benchmark's order."""

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""From which node to which, in the order of a cell's text."""

KIND = "cell"
"""The only kind of cell: the key of its alphas, float32 (6, 5), edges as in `EDGES`."""

COUNT = len(OPERATIONS) ** len(EDGES)
SPACE = "nasbench201"
NODES = 4

_EXAMPLE = "|nor_conv_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|none~0|nor_conv_1x1~1|avg_pool_3x3~2|"


@dataclasses.dataclass(frozen=True)
class Spec:
    """A cell.

    Attributes:
      operations: of the edges in the order of `EDGES`, of `OPERATIONS`.
    """

    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.operations) != len(EDGES):
            raise UserError(
                f"cell: {len(self.operations)} operations; a cell of NAS-Bench-201 has six edges"
            )
        for (source, target), name in zip(EDGES, self.operations, strict=True):
            if name not in OPERATIONS:
                raise UserError(
                    f"cell: the edge from node {source} to {target} has the operation {name!r}; "
                    f"use one of {', '.join(OPERATIONS)}"
                )

    def entering(self, node: int) -> list[tuple[int, str]]:
        """The nodes before one, each with the operation of the edge from it."""
        pairs = zip(EDGES, self.operations, strict=True)
        return [(source, name) for (source, target), name in pairs if target == node]

    def numbers(self) -> tuple[int, ...]:
        """The places of the edges' operations in `OPERATIONS`."""
        return tuple(OPERATIONS.index(name) for name in self.operations)

    def as_dict(self) -> dict[str, Any]:
        """The cell in the types of JSON."""
        return {"space": SPACE, "operations": list(self.operations)}

    def graphs(
        self, softmax: Softmax | None = None, operations: Operations | None = None
    ) -> list[Graph]:
        """The graph of the cell; see `graph.Drawable`."""
        weights: list[float | None] = [None] * len(EDGES)
        if softmax is not None:
            try:
                for row in softmax[KIND]:
                    if len(row) != len(OPERATIONS):
                        raise ValueError(f"{len(row)} weights on an edge")
                own = zip(softmax[KIND], self.numbers(), strict=True)
                weights = [float(row[number]) for row, number in own]
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"cell: alphas_softmax does not fit it ({error}); remove it or write it anew"
                ) from error
        return [
            Graph(
                title="Cell",
                states=[f"node {node}" for node in range(NODES)],
                labels=list(map(str, range(NODES))),
                inputs=1,
                edges=[(name, *edge) for name, edge in zip(self.operations, EDGES, strict=True)],
                weights=weights,
                choices=len(OPERATIONS),
            )
        ]

    def __str__(self) -> str:
        """The cell as the literature writes it; see `parse`."""
        nodes = [
            "".join(f"|{name}~{source}" for source, name in self.entering(node)) + "|"
            for node in range(1, NODES)
        ]
        return "+".join(nodes)


def parse(text: str) -> Spec:
    """The cell of a text such as `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|`.

    It lists what enters every node but the input, as operation~source; `str` gives it. Lists of
    numbers as `from_numbers` takes them will do, too: `[[3], [3, 1], [0, 2, 4]]`.

    Raises:
      UserError: it is no such text.
    """
    if text.lstrip().startswith("["):
        return from_numbers(_lists(text))
    nodes = text.strip().split("+")
    found: dict[tuple[int, int], str] = {}
    try:
        if len(nodes) != NODES - 1:
            raise ValueError(f"{len(nodes)} nodes instead of {NODES - 1}")
        for target, node in enumerate(nodes, 1):
            if not (node.startswith("|") and node.endswith("|") and len(node) > 2):
                raise ValueError(f"{node!r} is not between bars")
            for part in node[1:-1].split("|"):
                name, tilde, source = part.partition("~")
                if not tilde or not source.isdecimal():
                    raise ValueError(f"{part!r} is not operation~node")
                if (int(source), target) in found or int(source) >= target:
                    raise ValueError(f"{part!r} is no further edge to node {target}")
                found[int(source), target] = name
        missing = [edge for edge in EDGES if edge not in found]
        if missing:
            raise ValueError("no edge from node {} to {}".format(*missing[0]))
    except ValueError as error:
        raise UserError(f"cell {text!r}: {error}; write it as {_EXAMPLE}") from error
    return Spec(tuple(found[edge] for edge in EDGES))


def _lists(text: str) -> Any:
    try:
        return reading.parse_json(text)
    except ValueError as error:
        raise UserError(
            f"cell {reading.shown(text)}: is no JSON ({error}); write it as "
            "[[3], [3, 1], [0, 2, 4]]"
        ) from error


def from_dict(value: Mapping[str, Any]) -> Spec:
    """The inverse of `Spec.as_dict`; raises `UserError` for anything that is not a cell."""
    space = value.get("space") if isinstance(value, Mapping) else None
    if space != SPACE:
        raise UserError(f'cell: its space is {space!r}; expected "space": "{SPACE}"')
    operations = value.get("operations")
    if not isinstance(operations, Sequence) or isinstance(operations, str):
        raise UserError("cell: expected the key operations, a list of six names")
    return Spec(tuple(str(name) for name in operations))


def from_numbers(nodes: Sequence[Sequence[int]]) -> Spec:
    """The cell of lists of numbers, for each node of what enters it: [[3], [3, 1], [0, 2, 4]].

    Some published tables write cells like this. The numbers are places in `OPERATIONS`.

    Raises:
      UserError: these are no such lists.
    """
    try:
        names = [OPERATIONS[int(number)] for node in nodes for number in node if number >= 0]
        if [len(node) for node in nodes] != [1, 2, 3] or len(names) != len(EDGES):
            raise ValueError
    except (IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"cell {nodes!r}: expected one, two and three numbers from 0 to "
            f"{len(OPERATIONS) - 1}, as in [[3], [3, 1], [0, 2, 4]]"
        ) from error
    return Spec(tuple(names))


def every() -> Iterator[Spec]:
    """All 15,625 cells, the operation of the last edge changing first."""
    return (Spec(names) for names in itertools.product(OPERATIONS, repeat=len(EDGES)))


# A term is what an edge adds to a node: the input (0), or the result of an operation, (its number,
# the convolution's own number or -1, the terms that entered it).
_Term = Any


def _terms(spec: Spec) -> tuple[_Term, ...]:
    """What is summed in the output, with every convolution numbered by its edge."""
    nodes: list[tuple[_Term, ...]] = [(0,)]
    edge = dict(zip(EDGES, range(len(EDGES)), strict=True))
    for node in range(1, NODES):
        entering: list[_Term] = []
        for source, name in spec.entering(node):
            inside = nodes[source]
            if name == "none" or not inside:
                continue
            number = OPERATIONS.index(name)
            if name == "skip_connect":
                entering += inside
            elif name == "avg_pool_3x3":
                entering += [(number, -1, (term,)) for term in inside]
            else:
                entering.append((number, edge[source, node], inside))
        nodes.append(tuple(entering))
    return nodes[-1]


def _convolutions(terms: tuple[_Term, ...]) -> set[int]:
    found: set[int] = set()
    for term in terms:
        if term != 0:
            found |= _convolutions(term[2]) | ({term[1]} - {-1})
    return found


def _text(terms: tuple[_Term, ...], names: Mapping[int, str]) -> str:
    """A sum as text, its terms in the order of their texts, equal ones counted."""
    parts = Counter(
        "input"
        if term == 0
        else f"{OPERATIONS[term[0]]}{names.get(term[1], '')}({_text(term[2], names)})"
        for term in terms
    )
    return "+".join(
        f"{count}*{part}" if count > 1 else part for part, count in sorted(parts.items())
    )


def identity(spec: Spec) -> str:
    """The same text for cells that compute the same functions, and only for them.

    It is the output as a sum of paths: an edge with `none`, and everything that only it leads to,
    adds nothing; `skip_connect` adds what its node sums, and the mean of a sum is the sum of means.
    Convolutions are numbered, as a path that two sums share has one set of weights, which two equal
    paths do not; of all ways to number them it is the first one in the order of the texts.

    What a convolution makes of nothing counts as nothing, though its batch norm has a bias. The
    benchmark's own rule does so, too; it tells 6,466 classes apart by texts in which a sum of
    zeros differs from a zero, and in which shared paths look like equal ones.
    """
    terms = _terms(spec)
    found = sorted(_convolutions(terms))
    orders = itertools.permutations([f"#{k}" for k in range(1, len(found) + 1)])
    return min(_text(terms, dict(zip(found, order, strict=True))) for order in orders) or "0"


def sample(count: int, seed: int) -> list[Spec]:
    """Random cells, no two of which compute the same.

    All 15,625 cells in random order, without those that compute what an earlier one does: the
    first of a larger sample with the same seed are the smaller sample.

    Raises:
      UserError: there are not so many.
    """
    cells, seen, found = list(every()), set[str](), list[Spec]()
    for number in np.random.default_rng(seed).permutation(COUNT):
        if len(found) == count:
            break
        name = identity(cells[number])
        if name not in seen:
            seen.add(name)
            found.append(cells[number])
    if len(found) < count:
        raise UserError(
            f"sample of {count} cells: NAS-Bench-201 has {len(found):,} that compute something "
            "different"
        )
    return found
