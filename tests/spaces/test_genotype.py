"""Tests of discretisation, of the genotype's checks and of its file."""

import json
import pathlib
import re

import numpy as np
import pytest

from tests.analysis import synthetic
from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts import candidates, genotype, published
from unnas_jax.sweep import architectures

NONE, MAX, AVG, SKIP, SEP3, SEP5, DIL3, DIL5 = range(8)

VALID = genotype.Genotype(
    normal=(("sep_conv_3x3", 0), ("skip_connect", 1), ("dil_conv_5x5", 2), ("none", 0)),
    normal_concat=(2, 3),
    reduce=(("max_pool_3x3", 0), ("max_pool_3x3", 1), ("conv_7x1_1x7", 1), ("avg_pool_2x2", 2)),
    reduce_concat=(3,),
)


def alphas(rows: dict[int, dict[int, float]], edges: int) -> np.ndarray:
    """Zeros but for {edge: {operation: value}}."""
    value = np.zeros((edges, 8))
    for edge, entries in rows.items():
        for operation, strength in entries.items():
            value[edge, operation] = strength
    return value


def test_edges_are_listed_node_by_node() -> None:
    assert candidates.edges(3) == [
        (0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2), (3, 2),
    ]  # fmt: skip
    assert [candidates.num_edges(n) for n in (1, 2, 3, 4)] == [2, 5, 9, 14]


def test_operations_in_the_order_of_the_alphas() -> None:
    assert candidates.OPERATIONS == (
        "none", "max_pool_3x3", "avg_pool_3x3", "skip_connect",
        "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5",
    )  # fmt: skip


def test_best_edge_first_and_best_operation_on_it() -> None:
    # Edges: 0, 1 into node 0; 2, 3, 4 (from inputs 0, 1, node 0) into node 1.
    normal = alphas({0: {SEP3: 1.0}, 1: {DIL5: 2.0}, 2: {MAX: 3.0}, 4: {AVG: 2.5, SKIP: 2.4}}, 5)
    reduce = alphas({0: {SKIP: 2.0}, 1: {SEP5: 1.0}, 3: {DIL3: 0.2}, 4: {SEP5: 0.1}}, 5)
    found = genotype.discretise(normal, reduce)
    assert found.normal == (
        ("dil_conv_5x5", 1), ("sep_conv_3x3", 0), ("max_pool_3x3", 0), ("avg_pool_3x3", 2),
    )  # fmt: skip
    assert found.reduce == (
        ("skip_connect", 0), ("sep_conv_5x5", 1), ("dil_conv_3x3", 1), ("sep_conv_5x5", 2),
    )  # fmt: skip
    assert found.normal_concat == found.reduce_concat == (2, 3)


def test_none_is_never_chosen_but_its_weight_counts() -> None:
    # Edge 2: `none` is strongest and takes most of the softmax from sep_conv_3x3, whose alpha is
    # the largest of the node; so the edges 3 and 4, with smaller alphas, have larger weights.
    normal = alphas({2: {NONE: 6.0, SEP3: 2.0}, 3: {MAX: 0.5}, 4: {AVG: 1.0}}, 5)
    found = genotype.discretise(normal, normal)
    assert found.normal[2:] == (("avg_pool_3x3", 2), ("max_pool_3x3", 1))
    # Into node 0 there are only two edges: `none` everywhere, and still another operation.
    everywhere = alphas({k: {NONE: 9.0, DIL3: 0.1} for k in range(5)}, 5)
    found = genotype.discretise(everywhere, everywhere)
    assert {operation for operation, _ in found.normal} == {"dil_conv_3x3"}


def test_ties_keep_the_first() -> None:
    found = genotype.discretise(np.zeros((14, 8)), np.ones((14, 8)))
    assert found.normal == found.reduce == (("max_pool_3x3", 0), ("max_pool_3x3", 1)) * 4


def test_large_alphas_do_not_overflow() -> None:
    normal = alphas({0: {SEP3: 2000.0}, 1: {SEP5: -2000.0}}, 2)
    document = synthetic.document(normal, normal, {})
    assert document["alphas_softmax"]["normal"][0][SEP3] == 1.0
    assert document["genotype"]["normal"][0] == ["sep_conv_3x3", 0]


def test_document_round_trips_through_its_file(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    normal, reduce = rng.standard_normal((2, 14, 8))
    provenance = {"task": "rotation", "step": 12}
    path = tmp_path / "genotype.json"
    files.write_json(path, synthetic.document(normal, reduce, provenance))
    found, document = genotype.load(path)
    assert found == genotype.discretise(normal, reduce)
    assert (document["task"], document["step"], document["space"]) == ("rotation", 12, "darts")
    softmax = np.exp(normal) / np.exp(normal).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(document["alphas_softmax"]["normal"], softmax, atol=1e-6)


def test_dict_round_trips_through_json() -> None:
    assert genotype.from_dict(json.loads(json.dumps(VALID.as_dict()))) == VALID


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normal": [["conv_9x9", 0], ["none", 1]]}, "the normal cell's pair 0 names .*'conv_9x9'"),
        ({"reduce": [["none", 0], ["none", 2]]}, "the reduce cell's pair 1 takes state 2, but"),
        ({"normal": [["none", 0], ["none", -1]]}, "pair 1 takes state -1"),
        ({"normal": [["none", 0]]}, r"the normal cell has 1 \(operation, input\) pairs"),
        ({"reduce": []}, r"the reduce cell has 0 \(operation, input\) pairs"),
        ({"normal_concat": [2, 4]}, r"concatenates the states \[2, 4\]; .* from 0 to 3"),
        ({"reduce_concat": []}, r"the reduce cell's output concatenates the states \[\]"),
        ({"normal": None}, "expected the keys normal, normal_concat, reduce, reduce_concat"),
        ({"normal": [["none", "first"], ["none", 0]]}, "expected the keys"),
        ({"normal": [["none", 0, 1], ["none", 0]]}, "expected the keys"),
    ],
)  # fmt: skip
def test_an_invalid_genotype_is_refused_in_one_line(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        genotype.from_dict({**VALID.as_dict(), **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*genotype.json: No such file"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"{'normal'", "is not JSON"),
        (b'{"space": "nasbench201"}', "set config.network.space='nasbench201'"),
        (b"[]", "has the schema None; this version reads 'unnas_jax.genotype/1'"),
        (b'{"schema": "unnas_jax.genotype/9"}', "has the schema 'unnas_jax.genotype/9'"),
        (b'{"schema": "unnas_jax.genotype/1"}', "expected the keys"),
        (b'{"schema": "unnas_jax.genotype/1", "genotype": 3}', "expected the keys"),
    ],
)
def test_an_invalid_file_is_refused_in_one_line(
    tmp_path: pathlib.Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "genotype.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        genotype.load(path)
    assert not re.search("\n", str(caught.value))


def test_text_and_back() -> None:
    assert str(VALID) == (
        "sep_conv_3x3:0,skip_connect:1,dil_conv_5x5:2,none:0"
        "+max_pool_3x3:0,max_pool_3x3:1,conv_7x1_1x7:1,avg_pool_2x2:2@3"
    )
    assert genotype.parse(str(VALID)) == VALID
    for text in ("darts_v2", "runs/a+b/genotype.json"):
        assert not genotype.is_text(text)


@pytest.mark.parametrize("text", ["a:0+b", "none:0,none:1", "none:0,none:x+none:0,none:1", "+"])
def test_what_is_no_text(text: str) -> None:
    with pytest.raises(UserError, match="genotype"):
        genotype.parse(text)


PASTED = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_5x5', 2), ('none', 0)], "
    "normal_concat=range(2, 4), reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), "
    "('conv_7x1_1x7', 1), ('avg_pool_2x2', 2)], reduce_concat=[3])"
)


@pytest.mark.parametrize(
    "text", [PASTED, f"\nMY_V2 = {PASTED}\n", f"genotypes.{PASTED}", PASTED.replace(", ", ",\n  ")]
)
def test_what_darts_prints_is_a_genotype(text: str, tmp_path: pathlib.Path) -> None:
    assert published.resolve(text) == VALID
    path = tmp_path / "cells.txt"
    path.write_text(text)
    assert published.resolve(str(path)) == VALID
    # A training keeps the cells of a file, whatever its form.
    (tmp_path / "genotype.json").write_text(json.dumps(genotype.load(path)[1]))
    assert genotype.load(tmp_path / "genotype.json")[0] == VALID
    path.write_text(f"# Mine.\n{text}\ndarts_v2\n")
    names = [found.cell for found in architectures.read(str(path), "darts")]
    assert names == [str(VALID), str(published.GENOTYPES["darts_v2"])]


@pytest.mark.parametrize(
    "text",
    [
        "Genotype(normal=print('run'), normal_concat=[2], reduce=[], reduce_concat=[2])",
        "Genotype(normal=[('none', 0)] * 2, normal_concat=[2], reduce=[], reduce_concat=[2])",
        "Genotype(normal=[('none', 0)], normal_concat=range(10 ** 9))",
        "Genotype(normal=range(0, 1000, 0))",
        "Genotype(normal=[(0, 'none'), (1, 'none')], normal_concat=[2], reduce=[], "
        "reduce_concat=[2])",
        "Genotype(1, 2, 3, 4, 5)",
        "Genotype(",
        "Genotype(normal=" + "(" * 500,
    ],
)
def test_a_pasted_text_is_read_and_never_run(text: str, capsys) -> None:
    with pytest.raises(UserError, match="genotype"):
        published.resolve(text)
    assert capsys.readouterr().out == ""


def test_rounded_and_oversized_genotypes_are_refused() -> None:
    for value in (1.9, True, "1"):
        with pytest.raises(UserError, match="expected the keys"):
            genotype.from_dict({**VALID.as_dict(), "normal": [["none", value], ["none", 0]]})
    with pytest.raises(UserError, match="26 .* pairs; .* there may be 12"):
        genotype.from_dict({**VALID.as_dict(), "normal": [["none", 0]] * 26})
