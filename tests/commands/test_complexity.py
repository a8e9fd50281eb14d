"""Tests of the counts: against what JAX really traces, counts by hand, and published numbers."""

import collections
import functools
import json
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests import conftest, jaxprs
from unnas_jax.commands import complexity
from unnas_jax.core.errors import UserError
from unnas_jax.data import photos
from unnas_jax.layers import blocks as layers
from unnas_jax.layers import convolution, counting
from unnas_jax.layers.heads import AsppHead, ImageHead, PixelHead
from unnas_jax.spaces.darts import supernet as supernet_lib
from unnas_jax.spaces.darts import widths
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.darts.network import Cell, Network
from unnas_jax.spaces.darts.operations import BUILDERS
from unnas_jax.spaces.darts.published import CITYSCAPES_WIDTHS, GENOTYPES, IMAGENET_WIDTHS
from unnas_jax.spaces.nasbench101 import network as nasbench101
from unnas_jax.spaces.nasbench101.spec import parse


@pytest.fixture(autouse=True)
def plain_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions, not what a CPU puts in their place."""
    monkeypatch.setattr(convolution, "convolve", jax.lax.conv_general_dilated)
    plain = functools.partial(layers.depthwise_conv, by_xla=True)
    monkeypatch.setattr(supernet_lib, "depthwise_conv", plain)


def traced(module: Any, *arguments: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Parameters and multiply-adds by layer of a module that is really built, batch size 1."""
    products, variables = jaxprs.multiply_adds(
        lambda *xs: module.init(jax.random.key(0), *xs, train=False), *arguments
    )
    values: collections.Counter[str] = collections.Counter()
    for path, leaf in jax.tree.leaves_with_path(variables.get("params", {})):
        names = [step.key for step in path]
        layer = names[:-1] if names[-1] in ("kernel", "bias", "scale") else names
        values["/".join(layer)] += leaf.size
    inside = {scope.partition("/")[2]: number for scope, number in products.items()}
    return dict(values), inside


def image(size: tuple[int, int, int]) -> Any:
    return jax.ShapeDtypeStruct((1, *size), jnp.float32)


def counted(found: counting.Counts) -> tuple[dict[str, int], dict[str, int]]:
    values = {layer.name: layer.parameters for layer in found.layers if layer.parameters}
    products = {layer.name: layer.multiply_adds for layer in found.layers if layer.multiply_adds}
    return values, products


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("operation", BUILDERS)
def test_every_operation(operation: str, stride: int) -> None:
    # A cell of one node, whose second edge has neither parameters nor products.
    pairs = ((operation, 0), (operation, 1))
    cell = Cell(pairs, (2,), channels=6, reduction=stride == 2, reduce_input0=False, name="cell_0")
    size = (9, 11, 6)
    values, products = traced(cell, image(size), image(size))
    found: list[counting.Layer] = []
    counting._cell(cell, (size, size), counting._Scope(found))
    assert counted(counting.Counts(tuple(found))) == (values, products)


@pytest.mark.parametrize(
    ("name", "settings", "size"),
    [
        # Odd sides, all kinds of heads and stems; 7x7 and 8x8 pixels at the auxiliary heads.
        ("amoebanet", {"stem": "imagenet", "head": ImageHead(7)}, (65, 65, 3)),
        ("nasnet", {"stem": "cifar", "head": PixelHead(7)}, (15, 10, 1)),
        (
            "unnas_cityscapes_seg",
            {"stem": "imagenet", "head": AsppHead(19, 5, (6, 12)), "single_reduction": True},
            (65, 129, 3),
        ),
        (
            "darts_v2",
            {"stem": "imagenet", "head": ImageHead(7), "auxiliary_classes": 7},
            (224, 224, 3),
        ),
        ("pdarts", {"stem": "cifar", "head": ImageHead(7), "auxiliary_classes": 7}, (32, 32, 3)),
    ],
)
def test_discrete_networks(name: str, settings: dict[str, Any], size: tuple[int, int, int]) -> None:
    network = Network(GENOTYPES[name], width=6, cells=4, **settings)
    found = counting.count(network, size)
    values, products = traced(network, image(size))
    assert counted(found) == (values, products)
    auxiliary = sum(number for layer, number in values.items() if layer.startswith("auxiliary"))
    assert (auxiliary > 0) == ("auxiliary_classes" in settings)
    assert found.parameters_with_auxiliary == sum(values.values())
    assert found.parameters == sum(values.values()) - auxiliary
    assert found.multiply_adds == sum(
        number for layer, number in products.items() if not layer.startswith("auxiliary")
    )


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"stem": "imagenet", "nodes": 4, "head": ImageHead(5)}, (64, 64, 3)),
        (
            {
                "stem": "cifar",
                "nodes": 2,
                "head": AsppHead(5, 3, (2,)),
                "single_reduction": True,
            },
            (9, 9, 1),
        ),
    ],
)
def test_supernets(settings: dict[str, Any], size: tuple[int, int, int]) -> None:
    network = supernet_lib.Supernet(width=4, cells=3, **settings)
    alphas = supernet_lib.init_alphas(jax.random.key(0), settings["nodes"], 1.0)
    values, products = traced(network, image(size), alphas)
    found_values, found_products = counted(counting.count(network, size))
    assert found_values == values

    def by_module(by_layer: dict[str, int]) -> dict[str, int]:
        """The convolutions of all edges that leave a state run in a few products."""
        sums: collections.Counter[str] = collections.Counter()
        for layer, number in by_layer.items():
            parts = layer.split("/")
            if "weighted_sum" in parts:
                continue  # Of an edge's operations: like a sum elsewhere, no layer.
            sums["/".join(parts[:2] if parts[1].startswith("source") else parts)] += number
        return dict(sums)

    assert by_module(found_products) == by_module(products)


@pytest.mark.parametrize(
    ("cell", "settings", "size"),
    [
        # Channels cut by one, a straight edge, a pooling, a vertex to prune; odd sides.
        (
            "0110101-0011010-0000010-0000010-0000000-0000001-0000000:"
            "conv3x3,conv1x1,maxpool3x3,conv1x1,conv3x3",
            {"stem": "imagenet", "head": ImageHead(7, group=4), "stacks": 2},
            (43, 51, 3),
        ),
        ("01-00:", {"stem": "cifar", "head": PixelHead(5)}, (15, 10, 1)),
    ],
)
def test_nasbench101_networks(
    cell: str, settings: dict[str, Any], size: tuple[int, int, int]
) -> None:
    network = nasbench101.Network(parse(cell), width=6, modules=2, **settings)
    group = getattr(network.head, "group", 1)
    values, products = traced(network, jax.ShapeDtypeStruct((group, *size), jnp.float32))
    assert counted(counting.count(network, size)) == (values, products)


def test_nasbench101_s_example() -> None:
    cell = parse(
        "0111010-0000001-0000001-0000100-0000001-0000001-0000000:"
        "conv1x1,conv3x3,conv3x3,conv3x3,maxpool3x3"
    )
    # As the benchmark's own files give it.
    counts = counting.count(nasbench101.Network(cell, ImageHead(10)), (32, 32, 3))
    assert counts.parameters == counts.parameters_with_auxiliary == 2_694_282


def test_the_tiles_of_a_puzzle_are_one_answer() -> None:
    settings: dict[str, Any] = {"width": 4, "cells": 3, "nodes": 2, "stem": "cifar"}
    one = counting.count(supernet_lib.Supernet(**settings, head=ImageHead(24)), (8, 8, 3))
    four = counting.count(supernet_lib.Supernet(**settings, head=ImageHead(24, group=4)), (8, 8, 3))
    assert four.multiply_adds == 4 * one.multiply_adds
    features = one.layers[-1].multiply_adds // 24
    assert four.parameters - one.parameters == 3 * features * 24


def test_a_module_without_a_count_is_named() -> None:
    with pytest.raises(TypeError, match="no count for modules of the type Stem"):
        counting._count(layers.Stem("cifar", 4), (8, 8, 3), counting._Scope([]))


def test_parameters_of_a_tree() -> None:
    shapes = {
        "a": jax.ShapeDtypeStruct((3, 4), jnp.float32),
        "b": {"c": jnp.zeros(5), "d": jnp.ones(())},
    }
    assert counting.parameters(shapes) == 18


def test_the_traced_counts_by_hand() -> None:
    def function(x: jax.Array, kernel: jax.Array, matrix: jax.Array) -> jax.Array:
        with jax.named_scope("conv"):
            x = jax.lax.conv_general_dilated(
                x,
                kernel,
                (2, 2),
                ((2, 2), (2, 2)),
                rhs_dilation=(2, 2),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=4,
            )
        with jax.named_scope("linear"):
            return jax.jit(lambda x: jnp.einsum("nhwc,cd->nhwd", x, matrix))(jax.nn.relu(x))

    counts, _ = jaxprs.multiply_adds(
        function,
        jax.ShapeDtypeStruct((1, 9, 9, 8), jnp.float32),
        jax.ShapeDtypeStruct((3, 3, 2, 12), jnp.float32),
        jax.ShapeDtypeStruct((12, 5), jnp.float32),
    )
    by_name = {name.split("/")[0]: count for name, count in counts.items()}
    # 5x5 pixels of 12 channels, each from 3x3 pixels of 2 channels.
    assert by_name["conv"] == 25 * 12 * 9 * 2
    # Inside a program of its own, and still under the caller's name.
    assert by_name["linear"] == 25 * 12 * 5
    assert len(counts) == 2


def test_a_network_counted_by_hand() -> None:
    genotype = Genotype(
        normal=(("none", 0), ("none", 1)),
        normal_concat=(2,),
        reduce=(("sep_conv_3x3", 0), ("skip_connect", 1)),
        reduce_concat=(2,),
    )
    network = Network(genotype, width=4, cells=1, stem="cifar", head=ImageHead(10))
    counts = counting.count(network, (8, 8, 3))
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


# Millions of parameters as the paper prints them, and of true multiply-adds of its own 13 rows.
TABLE_1 = {
    "darts_v2": (4.7, 529.91),
    "pdarts": (4.9, None),
    "pcdarts_c10": (5.3, None),
    "pcdarts_in1k": (5.3, None),
    "unnas_in1k_cls": (5.3, 581.08),
    "unnas_in1k_rot": (5.1, 551.49),
    "unnas_in1k_col": (4.9, 539.60),
    "unnas_in1k_jig": (5.2, 559.66),
    "unnas_in22k_cls": (5.2, 574.58),
    "unnas_in22k_rot": (5.0, 541.12),
    "unnas_in22k_col": (5.0, 539.71),
    "unnas_in22k_jig": (5.1, 552.23),
    "unnas_cityscapes_seg": (5.1, 558.54),
    "unnas_cityscapes_rot": (5.1, 546.87),
    "unnas_cityscapes_col": (5.1, 584.93),
    "unnas_cityscapes_jig": (5.0, 549.69),
}
TABLE_2 = {
    "darts_v2": 9.6,
    "unnas_in1k_cls": 10.2,
    "unnas_in1k_rot": 10.4,
    "unnas_in1k_col": 9.7,
    "unnas_in1k_jig": 10.4,
    "unnas_in22k_cls": 10.1,
    "unnas_in22k_rot": 10.3,
    "unnas_in22k_col": 10.3,
    "unnas_in22k_jig": 10.4,
    "unnas_cityscapes_seg": 10.3,
    "unnas_cityscapes_rot": 10.3,
    "unnas_cityscapes_col": 9.5,
    "unnas_cityscapes_jig": 10.2,
}


def test_every_width_is_in_the_tables() -> None:
    assert TABLE_1.keys() == IMAGENET_WIDTHS.keys()
    assert TABLE_2.keys() == CITYSCAPES_WIDTHS.keys()


@pytest.mark.parametrize("name", TABLE_1)
def test_table_1(name: str) -> None:
    parameters, multiply_adds = TABLE_1[name]
    counts = widths.IMAGENET.count(GENOTYPES[name], IMAGENET_WIDTHS[name])
    assert round(counts.parameters / 1e6, 1) == parameters
    if multiply_adds is not None:
        assert counts.multiply_adds / 1e6 == pytest.approx(multiply_adds, abs=0.01)


@pytest.mark.parametrize("name", TABLE_2)
def test_table_2(name: str) -> None:
    counts = widths.CITYSCAPES.count(GENOTYPES[name], CITYSCAPES_WIDTHS[name])
    assert round(counts.parameters / 1e6, 1) == TABLE_2[name]
    assert counts.parameters_with_auxiliary == counts.parameters


def test_exact_published_counts() -> None:
    imagenet, cifar = widths.evaluation_sizes(GENOTYPES["darts_v2"])
    assert (imagenet["cells"], imagenet["input_size"]) == (14, 224)
    assert imagenet["width"] == widths.fit_width(GENOTYPES["darts_v2"])
    assert widths.IMAGENET.count(GENOTYPES["darts_v2"], 48).parameters == 4_718_752
    # 768 features of 7x7 pixels at a width of 48: pooled to 2x2, convolved to 1x1.
    features = 16 * imagenet["width"]
    auxiliary = features * 128 + 2 * 128 + 4 * 128 * 768 + 768 * 1000 + 1000
    assert imagenet["parameters_with_auxiliary"] == imagenet["parameters"] + auxiliary
    # As printed by the authors' code for 20 cells of width 36: 3.349342 MB.
    assert (cifar["cells"], cifar["width"], cifar["parameters"]) == (20, 36, 3_349_342)


@pytest.mark.parametrize("evaluation", [widths.IMAGENET, widths.CITYSCAPES])
@pytest.mark.parametrize("name", GENOTYPES)
def test_the_fitted_width_is_the_largest(name: str, evaluation: widths.Evaluation) -> None:
    genotype = GENOTYPES[name]
    width = widths.fit_width(genotype, evaluation)

    def value(width: int) -> int:
        return int(getattr(evaluation.count(genotype, width), evaluation.fitted))

    low, high = evaluation.limits
    assert width % 2 == 0
    assert low <= value(width) <= high < value(width + 2)


def test_no_width_fits_a_huge_cell() -> None:
    def cell(nodes: int) -> Genotype:
        pairs = (("conv_7x1_1x7", 0), ("conv_7x1_1x7", 1)) * nodes
        concat = tuple(range(2, nodes + 2))
        return Genotype(pairs, concat, pairs, concat)

    wide = cell(60)
    message = "no even width has 500 to 600 million multiply-adds .*: .* at 4, .* at 6; give"
    with pytest.raises(UserError, match=message):
        widths.fit_width(wide)
    with pytest.raises(UserError, match=r"\): [\d.]* at 2; give"):
        widths.fit_width(cell(500))
    assert widths.evaluation_sizes(wide)[0]["width"] == 48


def test_counting_takes_no_time() -> None:
    start = time.perf_counter()
    for genotype in GENOTYPES.values():
        widths.IMAGENET.count(genotype, 48)
    # 20 networks of 14 cells: 0.1 s measured.
    assert time.perf_counter() - start < 5


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "unnas_jax.commands.complexity", *arguments],
        cwd=conftest.ROOT,
        capture_output=True,
        text=True,
    )


def test_the_command() -> None:
    done = run("--config=configs/rot_in1k.py", "--json")
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["parameters"] == counts["parameters_with_auxiliary"] == 1_929_900
    assert (counts["width"], counts["input_size"], counts["inputs"]) == (16, 224, 1)
    assert counts["multiply_adds"] == sum(layer["multiply_adds"] for layer in counts["layers"])
    assert done.stderr == ""


def test_an_evaluation_s_network() -> None:
    done = run("--config=configs/eval_in1k.py:unnas_in22k_rot", "--json")
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    same = widths.IMAGENET.count(GENOTYPES["unnas_in22k_rot"], 42)
    assert {name: counts[name] for name in same.totals()} == same.totals()
    assert (counts["width"], counts["input_size"]) == (42, 224)
    assert counts["parameters_with_auxiliary"] > counts["parameters"]


def test_whole_images() -> None:
    from configs import eval_cityscapes

    counts = complexity.of_config(eval_cityscapes.get_config("darts_v2").to_dict())
    same = widths.CITYSCAPES.count(GENOTYPES["darts_v2"], CITYSCAPES_WIDTHS["darts_v2"])
    assert counts["input_size"] == [1025, 2049]
    assert {name: counts[name] for name in same.totals()} == same.totals()


def test_the_command_names_mistakes() -> None:
    done = run("--config=configs/rot_in1k.py", "--config.network.width=15")
    assert (done.returncode, done.stdout) == (2, "")
    assert "config.network.width=15" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_classes_that_only_the_dataset_knows() -> None:
    from configs import cls_photos

    config = cls_photos.get_config().to_dict()
    assert complexity.of_config(config)["layers"][-1]["parameters"] % len(photos.NAMES) == 0
    config["dataset"].update(name="tfds:oxford_flowers102")
    with pytest.raises(UserError, match="flowers102': its number of classes is not known"):
        complexity.of_config(config)
    more = complexity.of_config(config, classes=23)["parameters"]
    assert more > complexity.of_config(config, classes=22)["parameters"]
