"""Tests of what tells a collapse, and of the rules that stop a search: closed forms."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from tests import tiny
from tests.methods import test_every_method as every
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.methods import curvature, diagnostics, registry, stop_rules
from unnas_jax.methods.darts import Darts
from unnas_jax.methods.draws import ALPHA_STEP
from unnas_jax.runs import search as search_lib
from unnas_jax.runs import validation
from unnas_jax.spaces.darts import published


def test_skips_and_entropy() -> None:
    assert diagnostics.skips([name for name, _ in published.GENOTYPES["darts_v2"].normal]) == 2
    assert diagnostics.entropy(np.full((5, 8), 0.1)) == pytest.approx(math.log(8))
    assert diagnostics.entropy(np.eye(3)) == 0
    half = np.array([[0.5, 0.5, 0], [0, 0.2, 0]])
    assert diagnostics.entropy(half) == pytest.approx(math.log(2) / 2)


def test_the_largest_eigenvalue_of_a_matrix() -> None:
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.standard_normal((40, 40)))
    # The largest by its sign, not by its size.
    matrix = basis @ np.diag([-9.0, 3.0, *rng.uniform(-1, 1, 38)]) @ basis.T
    products = []

    def product(vector: np.ndarray) -> np.ndarray:
        products.append(vector)
        return matrix @ vector

    assert curvature.largest_eigenvalue(product, 40) == pytest.approx(3, rel=2e-3)
    assert len(products) < 20
    assert curvature.largest_eigenvalue(lambda v: 0 * v, 40) == 0
    assert curvature.largest_eigenvalue(lambda v: 2 * v, 1) == 2


def test_the_curvature_of_a_softmax() -> None:
    """L = 3 softmax(a)[0] at a = (0, 1)."""
    hessian = jax.hessian(lambda a: 3 * jax.nn.softmax(a)[0])(jnp.array([0.0, 1.0]))
    found = curvature.largest_eigenvalue(lambda v: np.asarray(hessian @ v), 2)
    assert found == pytest.approx(0.545146, rel=1e-3)


def test_the_product_of_a_supernet_s_hessian() -> None:
    """Against differences of gradients; zero where all alphas of an edge grow; on any devices."""
    one, two = every.made("smooth", 1), every.made("smooth", 2)
    state = one.init()
    rng = np.random.default_rng(0)
    # Alphas of some size, where the third derivative does not matter.
    alphas = {k: jnp.float32(rng.standard_normal(v.shape)) for k, v in state.alphas.items()}
    state = sharding.replicate(state.replace(alphas=alphas), one.setting.mesh)
    vector = rng.standard_normal(8).astype(np.float32)

    def product(method: Darts, vector: np.ndarray) -> np.ndarray:
        mesh = method.setting.mesh
        there = sharding.replicate(state, mesh), sharding.replicate(vector, mesh)
        return np.asarray(method.programs.curved(there[0], every.batch(method, 1), there[1]))

    found = product(one, vector)
    size = np.abs(found).max()
    assert size > 1e-4
    np.testing.assert_allclose(product(two, vector), found, atol=2e-3 * size)
    same = np.zeros(8, np.float32)
    same[2:4] = 1  # All operations of an edge of the normal cell.
    np.testing.assert_allclose(product(one, same), 0, atol=1e-3 * size)

    def slope(step: float) -> np.ndarray:
        flat, tree = ravel_pytree(state.alphas)
        moved = state.replace(alphas=tree(flat + step * vector))
        purpose = np.int32(ALPHA_STEP)
        _, grads, *_ = one.programs.gradients(moved, every.batch(one, 1), purpose, of="both")
        return np.asarray(ravel_pytree(grads)[0], np.float64)

    # So small that hardly any rectifier changes its side, whose kink is no part of the Hessian.
    differences = (slope(1e-4) - slope(-1e-4)) / 2e-4
    np.testing.assert_allclose(found, differences, atol=5e-2 * size)


def rows(values: list[float], every: int = 2) -> list[dict]:
    """One an epoch, with the eigenvalue of its epoch where it is measured."""
    return [
        {"epoch": e, "skips": 0, "ranking": str(e), "eigenvalue": v if e % every == 0 else None}
        for e, v in enumerate(values)
    ]


def first_stop(values: list[float]) -> tuple[int, int] | None:
    """The epoch in which the rule stops, and the one that it names."""
    for end in range(1, len(values) + 1):
        named = stop_rules.eigenvalue(rows(values[:end]), 50)
        if named is not None:
            return end - 1, named
    return None


def test_a_jump_of_the_eigenvalue() -> None:
    assert first_stop([1.0] * 20 + [2.0] * 30) == (22, 10)
    assert first_stop([1.0] * 50) is None


def test_a_growing_eigenvalue() -> None:
    """Stops if it grows by more than 1.3 in eight epochs."""
    slow, quick = 1.3 ** (1 / 8) - 1e-3, 1.3 ** (1 / 8) + 1e-3
    assert first_stop([slow**e for e in range(50)]) is None
    assert first_stop([quick**e for e in range(50)]) == (22, 10)


def test_the_rules_of_darts_plus() -> None:
    some = rows([1.0] * 12)
    assert stop_rules.two_skips([], 50) is None and stop_rules.two_skips(some, 50) is None
    some[-1]["skips"] = 2
    assert stop_rules.two_skips(some, 50) == 11
    assert stop_rules.stable_ranking(some, 50) is None
    for row in some[2:]:
        row["ranking"] = "same"
    assert stop_rules.stable_ranking(some, 50) is None  # Nine changes that did not come.
    for row in some[1:]:
        row["ranking"] = "same"
    assert stop_rules.stable_ranking(some, 50) == 11
    weights = np.array([[0.9, 0.1, 0.4, 0.3], [0.1, 0.2, 0.3, 0.4]])
    names = (("skip_connect", "sep_conv_3x3", "dil_conv_3x3", "sep_conv_5x5"),) * 2
    assert stop_rules.ranking(weights, names) == "2 3 1|3 2 1"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "darts",
            {"stop": "eigenvalues"},
            "config.method.stop='eigenvalues': use one of none, eig",
        ),
        ("darts", {"stop": "eigenvalue"}, "needs eigenvalues; set config.method.curvature_every"),
        ("darts", {"curvature_every": -1}, "curvature_every=-1: must be at least 0"),
        ("p_darts", {"stop": "two_skips"}, "the method has 3 stages"),
    ],
)
def test_mistakes(name: str, options: dict, message: str) -> None:
    config = tiny.config(epochs=3)
    registry.choose(config, name, **options)
    with pytest.raises(UserError, match=message) as caught:
        validation.validate(config)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_reports")
def test_a_search_that_a_rule_stops(images: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Its cells are those of the epoch that the rule names, and it does not go on afterwards."""
    config = tiny.config(epochs=4)
    config.dataset.update(name="folder", path=str(images))
    config.network.update(nodes=1, operations=("skip_connect", "max_pool_3x3"))
    config.input.update(crop=8, resize=10)
    config.workers = 0
    registry.choose(config, "darts", stop="two_skips", curvature_every=1)

    def named(rows: list, epochs: int) -> int | None:
        return 0 if len(rows) == 2 and epochs == 4 else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stop_rules.RULES, "two_skips", named)
        mesh = sharding.data_mesh
        patch.setattr(sharding, "data_mesh", lambda _=None: mesh(jax.devices()[:1]))
        states = [search_lib.search(config, str(tmp_path / "w")) for _ in range(2)]
    assert [int(state.step) for state in states] == [8, 8]
    document = json.loads((tmp_path / "w" / "genotype.json").read_text())
    assert document["finished"] and document["stopped"] == {"of_epoch": 1}
    with np.load(tmp_path / "w" / "alphas.npz") as columns:
        expected = columns["mixing/normal"][columns["epoch"] == 1][0]
    np.testing.assert_allclose(document["alphas_softmax"]["normal"], expected, atol=1e-6)
    lines = map(json.loads, (tmp_path / "w" / "metrics.jsonl").read_text().splitlines())
    measured = [line for line in lines if line["kind"] == "method"]
    assert [row["step"] for row in measured] == [4, 8]
    assert all(np.isfinite(row["eigenvalue"]) for row in measured)
    assert 0.6 < measured[0]["entropy_normal"] <= math.log(2)
