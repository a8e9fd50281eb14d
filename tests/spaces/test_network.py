"""Tests of discrete networks: shapes, drop path, auxiliary head."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import reference
from tests.spaces import quick
from unnas_jax.layers.heads import ImageHead, PixelHead
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.darts.network import AuxiliaryHead, Cell, Network

GENOTYPE = Genotype(
    normal=(("sep_conv_3x3", 0), ("skip_connect", 1), ("dil_conv_5x5", 2), ("none", 0)),
    normal_concat=(2, 3),
    reduce=(("max_pool_3x3", 0), ("skip_connect", 1), ("conv_3x3", 1), ("avg_pool_3x3", 2)),
    reduce_concat=(2, 3),
)


def output_shapes(
    stem: str, size: int, *, train: bool = True, head: Any = None, **settings: Any
) -> tuple[Any, Any]:
    """The outputs' shapes for a batch of 2, and the parameters' shapes."""
    network = Network(
        genotype=settings.pop("genotype", GENOTYPE),
        width=4,
        cells=settings.pop("cells", 3),
        stem=stem,
        head=head or ImageHead(10),
        **settings,
    )
    x = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), x)
    outputs = jax.eval_shape(
        lambda v, x: network.apply(
            v, x, train=train, drop_path=0.1, mutable=True, rngs={"drop_path": jax.random.key(0)}
        )[0],
        variables,
        x,
    )
    return outputs, variables["params"]


@pytest.mark.parametrize(("stem", "size"), [("cifar", 32), ("imagenet", 224)])
@pytest.mark.parametrize("train", [True, False])
def test_output_shapes(stem: str, size: int, train: bool) -> None:
    (main, auxiliary), _ = output_shapes(stem, size, train=train)
    assert main.shape == (2, 10)
    assert auxiliary is None
    (main, auxiliary), params = output_shapes(stem, size, train=train, auxiliary_classes=7)
    assert main.shape == (2, 10)
    assert "auxiliary" in params
    if train:
        assert auxiliary.shape == (2, 7)
    else:
        assert auxiliary is None


def test_a_dense_network_reduces_once() -> None:
    (outputs, _), _ = output_shapes(
        "imagenet", 65, head=PixelHead(5), cells=6, single_reduction=True
    )
    # 65 -> 33 -> 17 -> 9 in the stem, 5 in cell 2.
    assert outputs.shape == (2, 5, 5, 5)


def test_every_state_can_be_concatenated() -> None:
    genotype = dataclasses.replace(GENOTYPE, normal_concat=(0, 1, 2, 3))
    _, params = output_shapes("cifar", 8, genotype=genotype, cells=3)
    # Cell 0 is normal: 4 states of 4 channels meet the next cell's first layer.
    assert params["cell_1"]["preprocess1"]["convolution"]["conv"]["kernel"].shape == (1, 1, 16, 8)


def cell_outputs(
    pairs: Any, probability: Any, *, train: bool = True, seed: int = 0, count: int = 400
) -> np.ndarray:
    cell = Cell(pairs, (2,), channels=2, reduction=False, reduce_input0=False)
    x = np.random.default_rng(0).standard_normal((2, count, 2, 2, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), *x, train))
    variables = reference.random_like(shapes, seed=1, dtype=np.float32)
    run = quick.jit(
        lambda v, p: cell.apply(
            v, *x, train, p, mutable=["batch_stats"], rngs={"drop_path": jax.random.key(seed)}
        )[0]
    )
    return np.asarray(run(variables, probability))


def test_drop_path_drops_whole_examples_and_keeps_the_mean() -> None:
    pairs = (("none", 0), ("max_pool_3x3", 1))
    whole = cell_outputs(pairs, None)
    dropped = cell_outputs(pairs, 0.25)
    kept = np.any(dropped != 0, axis=(1, 2, 3))
    np.testing.assert_allclose(dropped[kept], whole[kept] / 0.75, rtol=1e-6, atol=1e-6)
    # 400 draws: a deviation of 0.022.
    assert 0.68 < kept.mean() < 0.82
    np.testing.assert_array_equal(cell_outputs(pairs, 0.25), dropped)
    assert np.any(cell_outputs(pairs, 0.25, seed=1) != dropped)
    np.testing.assert_allclose(cell_outputs(pairs, 0.0), whole, rtol=1e-6, atol=1e-6)


def test_drop_path_draws_for_each_operation() -> None:
    first = cell_outputs((("max_pool_3x3", 0), ("none", 1)), None)
    second = cell_outputs((("none", 0), ("avg_pool_3x3", 1)), None)
    both = cell_outputs((("max_pool_3x3", 0), ("avg_pool_3x3", 1)), 0.5)
    patterns = []
    for a, b, y in zip(first, second, both, strict=True):
        options = {(i, j): 2 * (i * a + j * b) for i in (0, 1) for j in (0, 1)}
        patterns.append(min(options, key=lambda key: float(np.abs(options[key] - y).max())))
        np.testing.assert_allclose(y, options[patterns[-1]], rtol=1e-5, atol=1e-5)
    shares = [patterns.count(key) / len(patterns) for key in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert min(shares) > 0.15
    assert max(shares) < 0.35


def test_identity_is_never_dropped_and_evaluation_drops_nothing() -> None:
    identity = (("skip_connect", 0), ("none", 1))
    # Two programs, whose sums may be in another order.
    same = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    same(cell_outputs(identity, 0.9), cell_outputs(identity, None))
    pool = (("none", 0), ("max_pool_3x3", 1))
    same(cell_outputs(pool, 0.9, train=False), cell_outputs(pool, None, train=False))


@pytest.mark.parametrize(("imagenet", "size", "stride"), [(False, 8, 3), (True, 7, 2)])
def test_auxiliary_head(imagenet: bool, size: int, stride: int) -> None:
    head = AuxiliaryHead(5, imagenet=imagenet)
    features = np.random.default_rng(0).standard_normal((4, size, size, 6)).astype(np.float32)
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), features, True))
    variables = reference.random_like(shapes, seed=1, dtype=np.float32)
    run = quick.jit(lambda v, x: head.apply(v, x, True, mutable=["batch_stats"])[0])
    params = variables["params"]
    x = reference.pool(reference.relu(features.astype(np.float64)), "avg", 5, stride, 0)
    x = reference.conv2d(x, params["conv_0"]["conv"]["kernel"])
    x = reference.relu(reference.batch_norm(x, params["bn_0"]))
    x = reference.conv2d(x, params["conv_1"]["kernel"])
    if not imagenet:
        x = reference.batch_norm(x, params["bn_1"])
    assert x.shape == (4, 1, 1, 768)
    expected = reference.relu(x)[:, 0, 0] @ params["linear"]["kernel"] + params["linear"]["bias"]
    np.testing.assert_allclose(run(variables, features), expected, rtol=1e-3, atol=1e-3)
    assert ("bn_1" in params) == (not imagenet)
