"""Tests of partial channels and auxiliary skips: closed forms, and that all forms agree."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import reference, tiny
from tests.spaces import plain, quick
from tests.spaces.test_supernet import Features, assert_trees_close
from unnas_jax.core.errors import UserError
from unnas_jax.runs import validation
from unnas_jax.spaces import partial
from unnas_jax.spaces.darts import per_edge, supernet
from unnas_jax.spaces.darts.candidates import OPERATIONS


@pytest.mark.parametrize("axis", [0, 3])
def test_a_shuffle_in_four_groups(axis: int) -> None:
    """PC-DARTS: y0 and y1 are what the operations made, x2 to x7 what bypassed them."""
    shape = [1, 1, 1, 1]
    shape[axis] = 8
    channels = np.arange(8.0).reshape(shape)
    parts = [jnp.asarray(part) for part in partial.parted(channels, 4, axis)]
    assert [part.shape[axis] for part in parts] == [2, 6]
    moved = np.ravel(partial.shuffled(parts, 4, axis))
    np.testing.assert_array_equal(moved, [0, 2, 4, 6, 1, 3, 5, 7])


def test_a_bypass_of_stride_two_takes_maxima() -> None:
    x = jnp.asarray(np.arange(-12.0, -3).reshape(1, 3, 3, 1))
    np.testing.assert_array_equal(partial.bypassed(x, 2)[0, :, :, 0], [[-8, -7], [-5, -4]])
    assert partial.bypassed(x, 1) is x


def test_an_edge_by_hand() -> None:
    """Skips and nothing else: half of the channels comes back with the edge's weight."""
    edge = per_edge.MixedOperation(("none", "skip_connect"), 4, 1, parts=2, auxiliary_skip=True)
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 4)).astype(np.float32)
    skips = {"auxiliary": jnp.float32(0.25)}
    found = edge.apply({}, x, jnp.array([0.1, 0.4]), False, skips)
    both = np.array([0.65, 0.65, 0.5, 0.5], np.float32) * x
    np.testing.assert_allclose(found, both[..., [0, 2, 1, 3]], rtol=1e-6)


def test_dropped_edges() -> None:
    """An image keeps an edge's output, scaled, or loses it; in evaluation nothing is dropped."""
    cell = per_edge.PlainCell(
        operations=(("skip_connect",),) * 2, channels=1, nodes=1, reduction=False,
        reduce_input0=False,
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal((400, 1, 1, 1)).astype(np.float32)
    weights, rngs = jnp.array([[1.0], [0.0]]), {"noise": jax.random.key(1)}
    skips = {"drop_path": jnp.float32(0.25)}
    variables = cell.init(jax.random.key(0), x, x, weights, False)
    evaluated = [cell.apply(variables, x, x, weights, False, found) for found in (skips, {})]
    np.testing.assert_array_equal(*evaluated)

    def trained(skips: Any) -> np.ndarray:
        found, _ = cell.apply(
            variables, x, x, weights, True, skips, mutable=["batch_stats"], rngs=rngs
        )
        return np.ravel(found)

    plain, dropped = trained({}), trained(skips)
    lost = dropped == 0
    assert 0.18 < lost.mean() < 0.32  # Of 400 draws: a deviation of 0.022.
    np.testing.assert_allclose(dropped[~lost], plain[~lost] / 0.75, rtol=1e-5)


def test_an_edge_of_one_operation() -> None:
    """That of the largest weight is computed, and only its statistics move."""
    names = ("skip_connect", "max_pool_3x3", "none")
    edge = per_edge.MixedOperation(names, 2, 1, one=True)
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 2)).astype(np.float32)
    variables = edge.init(jax.random.key(0), x, jnp.ones(3), True)
    assert jax.tree.leaves(variables.get("params", {})) == []

    def run(weights: list[float]) -> Any:
        return edge.apply(variables, x, jnp.array(weights), True, mutable=["batch_stats"])

    pooled, stats = run([0.1, 0.5, 0.4])
    best = reference.pool(x.astype(np.float64), "max", 3, 1, 1)
    mean, var = best.mean((0, 1, 2)), best.var((0, 1, 2))
    np.testing.assert_allclose(pooled, 0.5 * (best - mean) / np.sqrt(var + 1e-5), atol=1e-4)
    kept = jax.tree.leaves(variables["batch_stats"])
    moved = jax.tree.leaves(stats["batch_stats"])
    assert len(moved) == 2 and all(np.any(a != b) for a, b in zip(kept, moved, strict=True))
    skipped, stats = run([0.7, 0.2, 0.1])
    np.testing.assert_allclose(skipped, 0.7 * x, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, stats["batch_stats"], variables["batch_stats"])


@pytest.fixture(scope="module")
def by_definition() -> tuple[Any, Any]:
    """Arguments in float64 and what the plain definition makes of them."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        inputs = rng.standard_normal((4, 9, 9, 3))
        weights = {
            kind: rng.uniform(0.05, 1, (5, len(OPERATIONS))) for kind in ("normal", "reduce")
        }
        weights |= {"auxiliary": np.float64(0.3), "drop_path": np.float64(0.4)}
        module = network("depthwise")
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), inputs, weights, True))
        variables = reference.random_like(shapes, seed=1)
        arguments = variables["params"], variables["batch_stats"], inputs, weights

        def function(params: Any, stats: Any, inputs: Any, weights: Any) -> Any:
            own = plain.of_fused(params, stats, 2, parts=2)
            return applied("per_edge", own, inputs, weights)

        return arguments, with_gradient(function)(*arguments)


def network(form: str) -> supernet.Supernet:
    return supernet.Supernet(
        width=4, cells=2, nodes=2, stem="cifar", single_reduction=True, formulation=form,
        head=Features(), parts=2, auxiliary_skip=True, mix=dict, dtype=jnp.float64,
    )  # fmt: skip


def applied(form: str, variables: Any, inputs: Any, weights: Any) -> Any:
    """In training, with draws that do not depend on the form."""
    return network(form).apply(
        variables, inputs, weights, True, mutable=["batch_stats"], rngs={"noise": jax.random.key(3)}
    )[0]


def with_gradient(function: Any) -> Any:
    """Adds the gradient in the weights of a function of the outputs."""

    def of(weights: Any, *others: Any) -> Any:
        outputs = function(*others, weights)
        return jnp.sum(jnp.sin(outputs)), outputs

    both = jax.value_and_grad(of, has_aux=True)
    return quick.jit(lambda *arguments: both(arguments[-1], *arguments[:-1]))


@pytest.mark.parametrize("form", ["depthwise", "dense"])
def test_fused_forms_equal_the_definition(by_definition: tuple[Any, Any], form: str) -> None:
    arguments, expected = by_definition
    with jax.enable_x64(True):

        def function(params: Any, stats: Any, inputs: Any, weights: Any) -> Any:
            own = {"params": params, "batch_stats": stats}
            return applied(form, own, inputs, weights)

        assert_trees_close(with_gradient(function)(*arguments), expected, 1e-9)


@pytest.mark.parametrize(("parts", "width"), [(3, 16), (4, 12), (0, 16), (16, 16)])
def test_parts_that_do_not_divide_the_channels(parts: int, width: int) -> None:
    config = tiny.config()
    config.network.update(partial_channels=parts, width=width)
    message = f"config.network.partial_channels={parts}: must be 1, or divide network.width={width}"
    with pytest.raises(UserError, match=message):
        validation.validate(config)
