"""Cells by perturbation: which operation and which inputs are kept, of scores that are made up."""

import jax.numpy as jnp
import numpy as np
import pytest

from unnas_jax.config.sections import SupernetSection
from unnas_jax.methods.draws import ALPHA_STEP, WEIGHT_STEP, Given
from unnas_jax.methods.projection import Omission, Projection
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts import mixed as darts
from unnas_jax.spaces.darts.candidates import KINDS
from unnas_jax.spaces.nasbench201 import mixed as nasbench201
from unnas_jax.spaces.nasbench201.spec import Spec

NAMES = ("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3")


def projection(nodes: int = 3, names: tuple[str, ...] = NAMES) -> Projection:
    return Projection(darts, candidates.everywhere(nodes, names), seed=0)


def decided(made: Projection, measure) -> list[tuple[Omission, float]]:
    measured = []
    for _ in range(made.decisions):
        left = made.passes()
        found = [each for _, each, _ in made.decide(measure)]
        measured += [pair for each in found for pair in each]
        assert left - made.passes() == sum(map(len, found))
    assert made.passes() == 0
    return measured


def test_the_operation_that_is_missed_most_stays() -> None:
    def measure(given: Given, without: Omission) -> float:
        if not without.operation:
            # The edge without which the score stays highest goes, one after the other.
            return float(without.edge)
        return {"skip_connect": 0.6, "sep_conv_3x3": 0.5, "max_pool_3x3": 0.5}[without.operation]

    made = projection()
    measured = decided(made, measure)
    cells = made.cells()
    # Of equals the first; of a node's edges the last ones are gone, which are missed least.
    assert cells.normal == cells.reduce
    assert cells.normal == tuple(("sep_conv_3x3", source) for source in (0, 1) * 3)
    # 9 edges of 3 operations, and 3, then 4 and 3 inputs, of both cells.
    assert len(measured) == 2 * (9 * 3 + 3 + 4 + 3)
    # As many as the published search has on seven operations and four nodes.
    seven = tuple(name for name in candidates.OPERATIONS if name != "none")
    assert projection(4, seven).passes() == 240


def test_equal_inputs() -> None:
    """Of equals the last goes."""
    made = projection(2)
    decided(made, lambda given, without: 0.5)
    assert made.cells().normal == (("skip_connect", 0), ("skip_connect", 1)) * 2


def test_edges_come_in_random_order_before_nodes() -> None:
    made = projection()
    asked = [omitted for omitted, _ in decided(made, lambda given, without: 0.0)]
    edges = [o.edge for o in asked if o.operation and o.kind == "normal"][::3]
    assert sorted(edges) == list(range(9)) and edges != sorted(edges)
    wholes = [k for k, omitted in enumerate(asked) if not omitted.operation]
    assert min(wholes) > max(k for k, omitted in enumerate(asked) if omitted.operation)
    other = Projection(darts, made.operations, seed=1)
    assert other.order("normal") != made.order("normal")
    assert made.order("normal") != made.order("reduce")


def test_an_edge_without_a_choice_is_not_measured() -> None:
    made = projection(1, ("none", "skip_connect"))
    assert decided(made, lambda given, without: 1 / 0) == []
    assert made.cells().normal == (("skip_connect", 0), ("skip_connect", 1))


def test_decisions_go_on_where_they_were() -> None:
    rng = np.random.default_rng(0)
    scores = {}

    def measure(given: Given, without: Omission) -> float:
        return scores.setdefault((without, str(given)), rng.uniform())

    whole = projection()
    decided(whole, measure)
    parted = projection()
    for _ in range(parted.decisions):
        parted = projection().resumed(parted.as_json())
        list(parted.decide(measure))
    assert parted.cells() == whole.cells()


def test_what_the_supernet_mixes() -> None:
    made = projection(1)
    made.chosen["normal"][0] = "sep_conv_3x3"
    made.dropped["reduce"] = [1]
    rows = jnp.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    weights = dict.fromkeys(KINDS, rows)
    mixed = made.given(Omission("normal", 1, "none")).into(weights, ALPHA_STEP)
    np.testing.assert_allclose(mixed["normal"], [[0, 0, 1, 0], [0, 0.3, 0.2, 0.1]], rtol=1e-6)
    np.testing.assert_allclose(mixed["reduce"], [[0.1, 0.2, 0.3, 0.4], [0] * 4], rtol=1e-6)
    # Of an edge with a weight of its own (PC-DARTS) the operation has all of it.
    half = made.given(Omission("reduce", 0)).into({kind: rows / 2 for kind in KINDS}, WEIGHT_STEP)
    np.testing.assert_allclose(half["normal"][0], [0, 0, 0.5, 0], rtol=1e-6)
    assert not np.any(half["reduce"])


@pytest.mark.parametrize("purpose", [ALPHA_STEP, WEIGHT_STEP])
def test_what_is_given_to_weight_steps_only(purpose: int) -> None:
    ones, rows = {"normal": jnp.ones((1, 2))}, {"normal": jnp.array([[0.5, 0.5]])}
    given = Given(ones, {"normal": jnp.array([[0.25, 0.75]])}, 0.0)
    expected = [[0.5, 0.5]] if purpose == ALPHA_STEP else [[0.25, 0.75]]
    np.testing.assert_allclose(given.into(rows, purpose)["normal"], expected)


def test_nas_bench_201_keeps_every_edge_maybe_without_an_operation() -> None:
    """Every edge of its cells has one of all five operations, `none` among them."""
    operations = nasbench201.operations(SupernetSection())
    made = Projection(nasbench201, operations, seed=0)
    missed = ("none", "nor_conv_3x3", "nor_conv_3x3", "skip_connect", "none", "avg_pool_3x3")
    measured = decided(made, lambda _, without: float(without.operation != missed[without.edge]))
    assert len(measured) == 6 * 5 and sorted(made.order("cell")[0]) == list(range(6))
    assert str(made.cells()) == str(Spec(missed))
