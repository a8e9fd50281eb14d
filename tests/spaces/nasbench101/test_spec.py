"""Cells: what is refused, pruning, texts, and an identity that no renaming of vertices changes."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest

from tests.spaces.nasbench101.cells import drawn
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.nasbench101 import enumeration, space
from unnas_jax.spaces.nasbench101.spec import Spec, canonical, from_dict, identity, parse
from unnas_jax.sweep import architectures

EXAMPLE = Spec(
    (
        (0, 1, 1, 1, 0, 1, 0),
        (0, 0, 0, 0, 0, 0, 1),
        (0, 0, 0, 0, 0, 0, 1),
        (0, 0, 0, 0, 1, 0, 0),
        (0, 0, 0, 0, 0, 0, 1),
        (0, 0, 0, 0, 0, 0, 1),
        (0, 0, 0, 0, 0, 0, 0),
    ),
    ("input", "conv1x1", "conv3x3", "conv3x3", "conv3x3", "maxpool3x3", "output"),
)


def renamed(spec: Spec, seed: int) -> Spec:
    """The same cell with its vertices in a random order in which edges lead to later ones."""
    rng, count = np.random.default_rng(seed), len(spec.matrix)
    order = [0]
    while len(order) < count - 1:
        free = [
            v
            for v in range(1, count - 1)
            if v not in order and all(u in order for u in range(count) if spec.matrix[u][v])
        ]
        order.append(int(rng.choice(free)))
    order.append(count - 1)
    return Spec(
        tuple(tuple(spec.matrix[a][b] for b in order) for a in order),
        tuple(spec.operations[v] for v in order),
    )


def test_the_benchmark_s_names_are_accepted() -> None:
    names = ("input", "conv1x1-bn-relu", *["conv3x3-bn-relu"] * 3, "maxpool3x3", "output")
    assert Spec(EXAMPLE.matrix, names) == EXAMPLE


def test_texts_and_dicts_come_back() -> None:
    text = "0111010-0000001-0000001-0000100-0000001-0000001-0000000:"
    assert str(EXAMPLE) == text + "conv1x1,conv3x3,conv3x3,conv3x3,maxpool3x3"
    assert parse(str(EXAMPLE)) == EXAMPLE
    value = json.loads(json.dumps(EXAMPLE.as_dict()))
    assert value["space"] == "nasbench101"
    assert from_dict(value) == EXAMPLE
    smallest = Spec(((0, 1), (0, 0)), ("input", "output"))
    assert parse(str(smallest)) == smallest
    assert str(smallest) == "01-00:"
    assert parse("010-001-000:conv3x3-bn-relu").operations[1] == "conv3x3"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("darts_v2", ["darts_v2", "0110-0001-0001-0000:conv3x3,maxpool3x3"]),
        ("012-001-000:conv3x3", ["012-001-000"]),
        ("--:", ["--:"]),
        ("0110-0001-0001:conv3x3,conv1x1", ["3 rows", "4 operations"]),
        ("010-001-000:", ["3 rows", "2 operations"]),
        ("010-00-000:conv3x3", ["row 1", "2 entries", "3"]),
        ("010-001-100:conv3x3", ["from vertex 2 to 0"]),
        ("010-011-000:conv3x3", ["from vertex 1 to 1"]),
        ("010-001-000:conv5x5", ["vertex 1", "'conv5x5'", "maxpool3x3"]),
        ("000-001-000:conv3x3", ["no path"]),
        (
            "01000000-00100000-00010000-00001000-00000100-00000010-00000001-00000000:"
            + ",".join(["conv1x1"] * 6),
            ["8 vertices", "at most 7"],
        ),
        ("01111-00111-00011-00001-00000:conv1x1,conv1x1,conv1x1", ["10 edges", "at most 9"]),
    ],
)
def test_what_is_no_cell_is_named(text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        parse(text)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": "darts"}, ["'darts'", "nasbench101"]),
        ({"operations": None}, ["operations"]),
        ({"operations": ["conv1x1"] * 7}, ["first must be 'input'"]),
        ({"matrix": [[0, "x"], [0, 0]]}, ["matrix", "x"]),
        ({"matrix": [[0, 2], [0, 0]], "operations": ["input", "output"]}, ["2 in row 0, column 1"]),
    ],
)
def test_documents_that_are_no_cells(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        from_dict({**EXAMPLE.as_dict(), **changes})
    assert all(word in str(error.value) for word in words), error.value


def test_pruning_leaves_what_is_on_a_path() -> None:
    # Vertex 1 leads nowhere, nothing leads to vertex 2, vertex 3 is on the only path.
    spec = parse("01010-00000-00011-00001-00000:conv1x1,maxpool3x3,conv3x3")
    assert spec.pruned() == parse("010-001-000:conv3x3")
    assert identity(spec) == identity(parse("010-001-000:conv3x3"))
    assert EXAMPLE.pruned() == EXAMPLE
    # A vertex that only a vertex without an end uses is not on a path either.
    assert parse("0101-0010-0000-0000:conv1x1,conv1x1").pruned() == parse("01-00:")


def test_limits_are_those_of_the_pruned_cell() -> None:
    dangling = "011100000-000000001-000000000-000000000" + "-000000000" * 5
    spec = parse(f"{dangling}:" + ",".join(["conv1x1"] * 7))
    assert spec.pruned() == parse("010-001-000:conv1x1")


def test_identity_does_not_change_with_names() -> None:
    seen = 0
    for number, spec in enumerate([EXAMPLE, *drawn(60, seed=1)]):
        for seed in range(3):
            other = renamed(spec, seed=10 * number + seed)
            seen += other != spec
            assert identity(other) == identity(spec)
            assert sorted(other.operations) == sorted(spec.operations)
    assert seen > 60


def test_identity_tells_different_cells_apart() -> None:
    numbers = enumeration.enumerate_cells(max_vertices=5)
    specs = [enumeration.decode(number) for number in numbers]
    assert len({identity(spec) for spec in specs}) == len(specs) == 2532
    # Two branches of one operation each: which is which does not matter, but what they are does.
    one, two, three = (
        parse(f"0110-0001-0001-0000:{operations}")
        for operations in ("conv1x1,conv3x3", "conv3x3,conv1x1", "conv3x3,conv3x3")
    )
    assert identity(one) == identity(two) != identity(three)


def test_the_canonical_cell_is_the_cell() -> None:
    spec = canonical(EXAMPLE)
    assert canonical(spec) == spec
    assert identity(EXAMPLE) == str(spec)
    degrees = [
        sorted((name, sum(row)) for name, row in zip(s.operations, s.matrix, strict=True))
        for s in (spec, EXAMPLE)
    ]
    assert degrees[0] == degrees[1]


def test_specs_are_values() -> None:
    assert len({EXAMPLE, parse(str(EXAMPLE))}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        EXAMPLE.matrix = ()  # type: ignore[misc]


def test_a_cell_needs_no_space_but_may_not_have_another(tmp_path: pathlib.Path) -> None:
    document = EXAMPLE.as_dict()
    del document["space"]
    (tmp_path / "cell.json").write_text(json.dumps(document))
    assert space.resolve(str(tmp_path / "cell.json")) == EXAMPLE
    (tmp_path / "list.json").write_text(json.dumps([document]))
    [found] = architectures.read(str(tmp_path / "list.json"), "nasbench101")
    assert parse(found.cell) == EXAMPLE
    with pytest.raises(UserError, match="its space is 'darts'"):
        from_dict({**document, "space": "darts"})


@pytest.mark.parametrize("entry", [0.7, True, "1", None, [1]])
def test_entries_are_not_rounded(entry: Any) -> None:
    value = {"matrix": [[0, entry], [0, 0]], "operations": ["input", "output"]}
    with pytest.raises(UserError, match="neither 0 nor 1"):
        from_dict(value)
