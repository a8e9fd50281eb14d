"""Tests of a supernet's operations as a config names them: values, mistakes, labels, recipes."""

import importlib
import json
import re
from typing import Any

import jax
import ml_collections
import numpy as np
import pytest

from tests import tiny
from tests.analysis import synthetic
from unnas_jax.config import schema
from unnas_jax.core.errors import UserError
from unnas_jax.runs import validation
from unnas_jax.spaces import mixing
from unnas_jax.spaces.darts import candidates, supernet
from unnas_jax.tasks import registry

TWO = ("skip_connect", "sep_conv_3x3")
# Of a cell of two nodes: five edges, with differing numbers of operations.
RAGGED = {
    "normal": (TWO, TWO, ("none", *TWO), TWO, ("max_pool_3x3",)),
    "reduce": (("conv_3x3", "none"),) * 5,
}


def config(operations: Any, formulation: str = "auto") -> ml_collections.ConfigDict:
    c = tiny.config()
    with c.ignore_type():
        c.network.operations = operations
    c.search.formulation = formulation
    return c


def test_values() -> None:
    darts = {kind: (candidates.OPERATIONS,) * 5 for kind in ("normal", "reduce")}
    assert candidates.parse((), 2) == darts
    assert candidates.are_darts(candidates.parse(candidates.OPERATIONS, 2))
    assert not candidates.are_darts(candidates.parse(candidates.OPERATIONS[::-1], 2))
    assert candidates.parse(TWO, 2) == {"normal": (TWO,) * 5, "reduce": (TWO,) * 5}
    mixed = candidates.parse({"normal": TWO, "reduce": RAGGED["reduce"]}, 2)
    assert mixed == {"normal": (TWO,) * 5, "reduce": RAGGED["reduce"]}
    for value in ((), TWO, RAGGED):
        found = candidates.parse(value, 2)
        again = json.loads(json.dumps(candidates.as_json(found)))
        assert candidates.parse(again, 2) == found


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (("skip_conect",), "edge 0 of the normal cell has 'skip_conect'; did you mean 'skip_conn"),
        (("none",), "edge 0 of the normal cell has only none"),
        ({**RAGGED, "reduce": ((),) * 5}, "edge 0 of the reduce cell has no operation"),
        ((*TWO, TWO[0]), "edge 0 of the normal cell names an operation twice"),
        ({**RAGGED, "normal": (TWO,) * 4}, r"operations.normal: has lists for 4 .* has 5"),
        ({"normal": TWO}, "has the keys normal; give one list for all edges, or normal and reduce"),
        ({**RAGGED, "reduce": (TWO, "none")}, "'none' is not the list of an edge's operations"),
        ({**RAGGED, "reduce": "none"}, "operations.reduce='none': give a list"),
    ],
)  # fmt: skip
def test_mistakes(operations: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        validation.validate(config(operations))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("formulation", ["dense", "depthwise"])
def test_a_fused_form_knows_the_operations_of_darts_only(formulation: str) -> None:
    validation.validate(config((), formulation))
    with pytest.raises(UserError, match=f"formulation='{formulation}': knows only the eight"):
        validation.validate(config(TWO, formulation))


def test_auto_is_fused_where_the_form_knows_the_operations() -> None:
    def form(operations: Any) -> str:
        c = config(operations).to_dict()
        return supernet.build_supernet(c, registry.create(c, tiny.dataset())).formulation

    assert (form(()), form(TWO)) == ("depthwise", "per_edge")


def test_edges_of_differing_numbers_of_operations() -> None:
    operations = candidates.parse(RAGGED, 2)
    alphas = supernet.init_alphas(jax.random.key(0), 2, 1.0, operations)
    assert {kind: value.shape for kind, value in alphas.items()} == {
        "normal": (5, 3), "reduce": (5, 2)
    }  # fmt: skip
    weights = mixing.softmax(alphas, operations)
    for kind, names in operations.items():
        for edge, labels in enumerate(names):
            own = np.exp(np.asarray(alphas[kind][edge, : len(labels)], np.float64))
            expected = np.zeros(weights[kind].shape[1])
            expected[: len(labels)] = own / own.sum()
            np.testing.assert_allclose(weights[kind][edge], expected, rtol=1e-6)
            np.testing.assert_array_equal(alphas[kind][edge, len(labels) :], 0)
    # What no operation uses never moves.
    gradient = jax.grad(lambda a: (mixing.softmax(a, operations)["normal"] ** 2).sum())(alphas)
    used = candidates.mask(operations["normal"])
    assert np.all(np.isfinite(gradient["normal"])) and not np.any(gradient["normal"][~used])


def test_cells_and_document_of_other_operations() -> None:
    operations = candidates.parse(RAGGED, 2)
    normal = np.array([[1, 0, 9], [0, 2, 9], [9, 0, 1], [0, 1, 9], [0, 9, 9]], float)
    reduce = np.tile([0.0, 5.0], (5, 1))
    document = synthetic.document(normal, reduce, {}, operations)
    assert document["operations"] == {
        kind: [list(names) for names in RAGGED[kind]] for kind in ("normal", "reduce")
    }
    # The last edge has one operation, of weight 1; a column that it does not have is not read.
    assert document["genotype"]["normal"] == [
        ["sep_conv_3x3", 1], ["skip_connect", 0], ["max_pool_3x3", 2], ["sep_conv_3x3", 1]
    ]  # fmt: skip
    assert document["genotype"]["reduce"] == [["conv_3x3", k] for k in (0, 1, 0, 1)]
    for kind, names in operations.items():
        rows = document["alphas_softmax"][kind]
        assert [len(row) for row in rows] == [len(labels) for labels in names]
        np.testing.assert_allclose([sum(row) for row in rows], 1, atol=1e-5)


# Zela et al., 2020: their space S1 by edge, S skip, M and A poolings, s and d convolutions.
S1 = {
    "normal": "S/d3 S/d5 S/d5 S/s3 S/d3 M/S S/s3 S/s3 S/d3 S/s3 M/S S/d3 d3/d5 d3/d5",
    "reduce": "M/A M/d3 M/A M/A S/d5 M/A M/s3 S/d3 S/d5 M/A M/A S/d5 S/d5 S/d5",
}
LETTERS = {
    "S": "skip_connect", "M": "max_pool_3x3", "A": "avg_pool_3x3", "s3": "sep_conv_3x3",
    "d3": "dil_conv_3x3", "d5": "dil_conv_5x5",
}  # fmt: skip


def test_the_published_spaces() -> None:
    def of(name: str) -> Any:
        c = importlib.import_module(f"configs.{name}_cifar10").get_config()
        validation.validate(c)
        plain = importlib.import_module("configs.darts_cifar10").get_config()
        lines = schema.difference(plain.to_dict(), c.to_dict())
        assert lines and all(re.match("network.operations", line) for line in lines)
        return candidates.of_network(c.to_dict()["network"])

    s1 = {
        kind: tuple(tuple(LETTERS[name] for name in edge.split("/")) for edge in text.split())
        for kind, text in S1.items()
    }
    assert of("s1") == s1
    assert of("s2") == candidates.everywhere(4, TWO)
    assert of("s3") == candidates.everywhere(4, ("none", *TWO))
    assert of("s4") == candidates.everywhere(4, ("noise", "sep_conv_3x3"))
