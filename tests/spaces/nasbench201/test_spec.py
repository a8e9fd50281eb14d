"""Cells of NAS-Bench-201: texts, identity, samples."""

import itertools

import pytest

from unnas_jax.core.errors import UserError
from unnas_jax.spaces.nasbench201 import spec as spec_lib
from unnas_jax.spaces.nasbench201.spec import EDGES, OPERATIONS, Spec, identity, parse

BEST = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
)
"""The cell with the highest published CIFAR-10 accuracy."""


def test_texts_numbers_and_dicts_are_the_same_cell() -> None:
    cell = parse(BEST)
    assert str(cell) == BEST
    assert cell == spec_lib.from_numbers([[3], [3, 3], [1, 3, 2]])
    assert cell == spec_lib.from_dict(cell.as_dict())
    assert cell.entering(3) == [(0, "skip_connect"), (1, "nor_conv_3x3"), (2, "nor_conv_1x1")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "1 nodes instead of 3"),
        (BEST.replace("skip_connect", "skip"), "'skip'; use one of none"),
        (BEST.replace("~2", "~1"), "no further edge"),
        (BEST.replace("|nor_conv_1x1~2", ""), "no edge from node 2 to 3"),
        (BEST.replace("~2", ""), "not operation~node"),
    ],
)
def test_what_is_no_cell_is_told(text: str, words: str) -> None:
    with pytest.raises(UserError, match="cell") as error:
        parse(text)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "numbers", [[[3], [3, 3]], [[3], [3, 3], [1, 3, 5]], [[3], [3, -1], [1, 3, 0]]]
)
def test_what_are_no_numbers_of_a_cell_is_told(numbers: list[list[int]]) -> None:
    with pytest.raises(UserError, match="numbers from 0 to 4"):
        spec_lib.from_numbers(numbers)


def test_there_are_15625() -> None:
    cells = list(spec_lib.every())
    assert len(set(cells)) == len(cells) == 15_625 == spec_lib.COUNT


def benchmark_text(cell: Spec) -> str:
    """The benchmark's own rule for cells that are the same, which has 6,466 classes."""
    nodes = ["0"]
    for node in (1, 2, 3):
        parts = []
        for source, name in cell.entering(node):
            if name == "none" or nodes[source] == "#":
                parts.append("#")
            elif name == "skip_connect":
                parts.append(nodes[source])
            else:
                parts.append(f"({nodes[source]})@{name}")
        nodes.append("+".join(sorted(parts)))
    return nodes[-1]


def convolutions(text: str) -> int:
    """The different convolutions of an identity."""
    return len({part.split("(")[0] for part in text.split("nor_conv") if "#" in part.split("(")[0]})


def test_the_benchmark_s_classes_differ_from_these_only_where_explained() -> None:
    """Cells that the benchmark takes for the same are so, unless they share convolutions."""
    classes: dict[str, set[str]] = {}
    for cell in spec_lib.every():
        classes.setdefault(benchmark_text(cell), set()).add(identity(cell))
    assert len(classes) == 6_466
    split = [names for names in classes.values() if len(names) > 1]
    assert 0 < len(split) < 500
    for names in split:
        # The same paths, by fewer convolutions where one is shared.
        assert len(set(map(convolutions, names))) > 1 or all(
            "*" in name or "#" in name for name in names
        )


def edges(**operations: str) -> Spec:
    """A cell with some edges, written e03, and no others."""
    return Spec(tuple(operations.get(f"e{a}{b}", "none") for a, b in EDGES))


def test_identity_by_hand() -> None:
    conv, one, skip, pool = "nor_conv_3x3", "nor_conv_1x1", "skip_connect", "avg_pool_3x3"
    direct = identity(edges(e03=conv))
    # Through either node, before or after a skip; dead ends and what nothing enters do not count.
    assert direct == identity(edges(e01=conv, e13=skip)) == identity(edges(e02=skip, e23=conv))
    assert direct == identity(edges(e03=conv, e01=one)) == identity(edges(e03=conv, e23=one))
    # The order of a sum.
    assert identity(edges(e01=conv, e13=skip, e03=skip)) == identity(
        edges(e02=conv, e23=skip, e01=skip, e13=skip)
    )
    # The mean of a sum is the sum of the means.
    assert identity(edges(e01=pool, e02=skip, e12=skip, e23=pool)) == identity(
        edges(e01=pool, e13=pool, e03=pool)
    )
    # One convolution twice is not two convolutions.
    twice = edges(e01=conv, e12=skip, e13=skip, e23=skip)
    assert identity(twice) != identity(edges(e01=conv, e13=skip, e02=conv, e23=skip))
    # Nothing at all.
    assert identity(edges()) == identity(edges(e01=conv)) == "0"
    assert len({direct, identity(edges(e03=one)), identity(edges(e03=pool)), "0"}) == 4


def test_renaming_the_middle_nodes_keeps_the_identity() -> None:
    """Without an edge between them, nodes 1 and 2 are interchangeable."""
    for a, b, c, d in itertools.islice(itertools.product(OPERATIONS, repeat=4), 0, 625, 7):
        assert identity(edges(e01=a, e02=b, e13=c, e23=d)) == identity(
            edges(e01=b, e02=a, e13=d, e23=c)
        )


def test_samples_are_different_and_grow() -> None:
    ten = spec_lib.sample(10, 3)
    assert spec_lib.sample(4, 3) == ten[:4] != spec_lib.sample(4, 4)
    assert len(set(map(identity, ten))) == 10
