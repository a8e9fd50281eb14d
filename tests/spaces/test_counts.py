"""Counts of supernets and discrete networks: by hand, and against single traces of all of them."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unnas_jax.layers import counting
from unnas_jax.layers.heads import AsppHead, ImageHead, PixelHead
from unnas_jax.spaces.darts import sampling
from unnas_jax.spaces.darts import supernet as supernet_lib
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.darts.network import Network
from unnas_jax.spaces.darts.operations import BUILDERS
from unnas_jax.spaces.darts.parameters import parameters_of
from unnas_jax.spaces.darts.published import GENOTYPES
from unnas_jax.spaces.darts.supernet import Supernet
from unnas_jax.spaces.nasbench101 import network as nasbench101
from unnas_jax.spaces.nasbench101.spec import parse


def of(network: Any, *size: int) -> counting.Counts:
    return counting.count(network, counting.answer(network, size), train=False)


PLACES: list[tuple[Any, tuple[int, int, int]]] = [
    # Odd sides, all kinds of heads and stems; 7x7 and 8x8 pixels at the auxiliary heads.
    (
        Network(GENOTYPES["amoebanet"], 6, 4, stem="imagenet", head=ImageHead(7)),
        (65, 65, 3),
    ),
    (Network(GENOTYPES["nasnet"], 6, 4, stem="cifar", head=PixelHead(7)), (15, 10, 1)),
    (
        Network(
            GENOTYPES["unnas_cityscapes_seg"],
            6,
            4,
            stem="imagenet",
            head=AsppHead(19, 5, (6, 12)),
            single_reduction=True,
        ),
        (65, 129, 3),
    ),
    (
        Network(
            GENOTYPES["darts_v2"], 6, 4, stem="imagenet", head=ImageHead(7), auxiliary_classes=7
        ),
        (224, 224, 3),
    ),
    (
        # Channels cut by one, a straight edge, a pooling, a vertex to prune; odd sides.
        nasbench101.Network(
            parse(
                "0110101-0011010-0000010-0000010-0000000-0000001-0000000:"
                "conv3x3,conv1x1,maxpool3x3,conv1x1,conv3x3"
            ),
            ImageHead(7, group=4),
            width=6,
            modules=2,
            stem="imagenet",
            stacks=2,
        ),
        (43, 51, 3),
    ),
]


@pytest.mark.parametrize(("network", "size"), PLACES)
def test_counting_from_memory_changes_nothing(
    network: Any, size: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against one trace of the whole network, in which no module stands for another."""
    of(network, *size)
    found = of(network, *size)
    monkeypatch.setattr(counting, "_is_plain", lambda value: False)
    assert found == of(network, *size)
    inputs = counting.answer(network, size)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), inputs)
    params = variables["params"]
    assert found.parameters_with_auxiliary == counting.parameters(params)
    auxiliary = counting.parameters(params.get("auxiliary", {}))
    assert found.parameters == found.parameters_with_auxiliary - auxiliary
    assert (auxiliary > 0) == bool(getattr(network, "auxiliary_classes", 0))
    hidden = [layer for layer in found.layers if layer.name.startswith("auxiliary/")]
    assert sum(layer.parameters for layer in hidden) == auxiliary
    assert found.multiply_adds == sum(
        layer.multiply_adds for layer in found.layers if layer not in hidden
    )


def test_a_supernet_is_every_operation_on_every_edge() -> None:
    """One cell of one node at 8x8 pixels of 12 channels, reduced to 4x4 of 8, by hand."""
    head = ImageHead(5)
    supernet = Supernet(width=4, cells=1, nodes=1, stem="cifar", head=head)
    alphas = jax.eval_shape(lambda: supernet_lib.init_alphas(jax.random.key(0), 1, 1.0))
    found = counting.count(
        supernet, jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32), alphas, train=False
    )
    stem, preprocess = 27 * 12, 12 * 8
    # On each edge: two halves of the separable ones, one of the dilated, the reducing skip.
    pointwise = 6 * 8 * 8
    depthwise = (2 * 9 + 2 * 25 + 9 + 25) * 8
    edge = pointwise + depthwise + 8 * 8
    assert found.parameters == stem + 2 * 12 + 2 * preprocess + 2 * edge + 8 * 5 + 5
    assert found.multiply_adds == 64 * (stem + 2 * preprocess) + 16 * 2 * edge + 8 * 5


def test_nasbench101_s_example() -> None:
    cell = parse(
        "0111010-0000001-0000001-0000100-0000001-0000001-0000000:"
        "conv1x1,conv3x3,conv3x3,conv3x3,maxpool3x3"
    )
    # As the benchmark's own files give it.
    counts = of(nasbench101.Network(cell, ImageHead(10)), 32, 32, 3)
    assert counts.parameters == counts.parameters_with_auxiliary == 2_694_282


def test_the_tiles_of_a_puzzle_are_one_answer() -> None:
    settings: dict[str, Any] = {"width": 4, "cells": 3, "stem": "cifar"}
    one = of(Network(GENOTYPES["darts_v2"], **settings, head=ImageHead(24)), 8, 8, 3)
    four = of(Network(GENOTYPES["darts_v2"], **settings, head=ImageHead(24, group=4)), 8, 8, 3)
    assert four.multiply_adds == 4 * one.multiply_adds
    features = one.layers[-1].multiply_adds // 24
    assert four.parameters - one.parameters == 3 * features * 24


@pytest.mark.parametrize("nodes", [1, 3])
def test_the_parameters_of_many_genotypes_are_sums(nodes: int) -> None:
    rng = np.random.default_rng(0)

    def cell() -> Any:
        return tuple(
            (
                str(rng.choice([name for name in BUILDERS if "2x2" not in name])),
                int(rng.integers(node + 2)),
            )
            for node in range(nodes)
            for _ in range(2)
        )

    for _ in range(5):
        concat = (nodes + 1,)
        genotype = Genotype(cell(), concat, cell(), concat)
        network = Network(genotype, 6, 4, stem="cifar", head=ImageHead(7), auxiliary_classes=3)
        size = (32, 32, 3)
        assert parameters_of(network, size) == of(network, *size).parameters


def test_a_network_counted_by_hand() -> None:
    genotype = Genotype(
        normal=(("none", 0), ("none", 1)),
        normal_concat=(2,),
        reduce=(("sep_conv_3x3", 0), ("skip_connect", 1)),
        reduce_concat=(2,),
    )
    network = Network(genotype, width=4, cells=1, stem="cifar", head=ImageHead(10))
    counts = of(network, 8, 8, 3)
    # The only cell is a reduction cell: 8 channels, from 8x8 to 4x4 pixels. BNs have two values
    # a channel.
    stem = 3 * 3 * 3 * 12
    preprocess = 12 * 8
    depthwise, pointwise = 3 * 3 * 8, 8 * 8
    skip = 2 * 8 * 4
    linear = 8 * 10
    assert counts.parameters == (
        stem + 2 * 12
        + 2 * (preprocess + 2 * 8)
        + 2 * (depthwise + pointwise + 2 * 8)
        + skip + 2 * 8
        + linear + 10
    )  # fmt: skip
    assert counts.multiply_adds == (
        64 * stem + 2 * 64 * preprocess + 2 * 16 * (depthwise + pointwise) + 16 * skip + linear
    )
    assert counts.parameters_with_auxiliary == counts.parameters


def test_counting_a_network_like_one_before_takes_no_time() -> None:
    """Thousands are drawn for a sample: what was traced for one is known for all."""
    sampling.parameters(sampling.draw_darts(0, 0))
    start = time.perf_counter()
    for number in range(400):
        sampling.parameters(sampling.draw_darts(0, number))
    # 2 s measured; tracing each would take 40.
    assert time.perf_counter() - start < 20
