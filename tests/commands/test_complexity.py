"""Tests of the counts: by hand, against parameters that JAX makes, and published numbers."""

import dataclasses
import json
import subprocess
import sys
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import conftest, handmade
from unnas_jax.commands import complexity as complexity_command
from unnas_jax.config.recipes import CITYSCAPES_WIDTHS, IMAGENET_WIDTHS
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.data import photos
from unnas_jax.layers import blocks as layers
from unnas_jax.layers import counting
from unnas_jax.layers.heads import AsppHead, ImageHead, PixelHead
from unnas_jax.spaces import complexity
from unnas_jax.spaces.darts import sampling, widths
from unnas_jax.spaces.darts import supernet as supernet_lib
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.darts.network import Network
from unnas_jax.spaces.darts.operations import BUILDERS
from unnas_jax.spaces.darts.parameters import parameters_of
from unnas_jax.spaces.darts.published import GENOTYPES
from unnas_jax.spaces.darts.supernet import Supernet
from unnas_jax.spaces.nasbench101 import network as nasbench101
from unnas_jax.spaces.nasbench101.spec import parse


def image(*size: int) -> Any:
    return jax.ShapeDtypeStruct((1, *size), jnp.float32)


def of(network: Any, *size: int) -> counting.Counts:
    return counting.count(network, counting.answer(network, size), train=False)


class Products(nn.Module):
    """A strided, dilated, grouped convolution, a transposed one, and a product within a jit."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(
            12,
            (3, 3),
            strides=2,
            padding=((2, 2), (2, 2)),
            kernel_dilation=2,
            feature_group_count=4,
            name="conv",
        )(x)
        x = nn.ConvTranspose(12, (2, 2), strides=(2, 2), use_bias=False, name="transposed")(x)
        matrix = self.param("matrix", nn.initializers.ones, (12, 5))
        return jax.jit(lambda x: jnp.einsum("nhwc,cd->nhwd", x, matrix))(nn.relu(x))


def test_convolutions_and_products_by_hand() -> None:
    counts = counting.count(Products(), image(9, 9, 8))
    assert counts.layers == (
        counting.Layer("", 12 * 5, 100 * 12 * 5),
        # 5x5 pixels of 12 channels, each from 3x3 pixels of 2 channels, and a bias.
        counting.Layer("conv", 12 * 9 * 2 + 12, 25 * 12 * 9 * 2),
        # Each of them gives a share to 2x2 pixels.
        counting.Layer("transposed", 12 * 4 * 12, 25 * 12 * 4 * 12),
    )


class Shared(nn.Module):
    """One layer twice, a stack of three by scan, one of two kept by checkpoints."""

    def setup(self) -> None:
        self.twice = nn.Dense(6, use_bias=False)
        self.embedding = nn.Embed(11, 6)

    @nn.compact
    def __call__(self, tokens: jax.Array, train: bool) -> jax.Array:
        x = self.twice(self.twice(self.embedding(tokens)))

        def step(layer: nn.Module, x: jax.Array) -> tuple[jax.Array, None]:
            return layer(x), None

        stack = nn.scan(step, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = stack(nn.Dense(6, use_bias=False, name="stack"), x)
        for k in range(2):
            x = nn.remat(nn.Dense)(6, use_bias=False, name=f"kept_{k}")(x)
        x = nn.MultiHeadDotProductAttention(2, use_bias=False, name="attention")(x, x)
        return self.embedding.attend(nn.Dropout(0.5)(x, deterministic=not train))


@pytest.mark.parametrize("train", [False, True])
def test_any_module_counts(train: bool) -> None:
    tokens = jax.ShapeDtypeStruct((1, 7), jnp.int32)
    counts = counting.count(Shared(), tokens, train=train)
    found: dict[str, list[int]] = {}
    for layer in counts.layers:
        row = found.setdefault(layer.name.split("/")[0], [0, 0])
        row[0] += layer.parameters
        row[1] += layer.multiply_adds
    products = 7 * 36  # Of a 6x6 matrix for every token.
    # Queries, keys, values and outputs; every pair of tokens compared and mixed.
    attention = [4 * 36, 4 * products + 2 * 7 * 7 * 6]
    assert found == {
        "twice": [36, 2 * products],
        "stack": [3 * 36, 3 * products],
        "kept_0": [36, products],
        "kept_1": [36, products],
        "attention": attention,
        "embedding": [11 * 6, 7 * 6 * 11],
    }
    variables = jax.eval_shape(lambda x: Shared().init(jax.random.key(0), x, train=False), tokens)
    assert counts.parameters == counting.parameters(variables["params"])


@jax.custom_vjp
def _scaled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


_scaled.defvjp(
    lambda x, kernel: (x @ kernel, (x, kernel)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g)
)


class Chosen(nn.Module):
    """A product with a gradient of its own, then one of two branches."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.ones, (4, 4))
        x = _scaled(x, kernel)
        return jax.lax.cond(x.sum() > 0, lambda x: x @ kernel @ kernel, lambda x: x @ kernel, x)


def test_own_gradients_and_branches() -> None:
    (layer,) = counting.count(Chosen(), jax.ShapeDtypeStruct((3, 4), jnp.float32)).layers
    assert layer == counting.Layer("", 16, 3 * 3 * 16)


class Small(nn.Module):
    """A depthwise convolution of few pixels, which a CPU computes as a large matrix product."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return layers.Conv(6, (3, 3), groups=6)(x)


def test_what_is_counted_does_not_depend_on_how_this_machine_computes_it() -> None:
    assert counting.count(Small(), image(4, 4, 6)).multiply_adds == 16 * 9 * 6
    # Nor on what it is asked to trace for.
    mesh = jax.sharding.AbstractMesh(
        (4,), ("data",), abstract_device=jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu")
    )
    with jax.sharding.use_abstract_mesh(mesh):
        assert counting.count(Small(), image(5, 4, 6)).multiply_adds == 20 * 9 * 6
        assert sharding.platform() == "tpu"


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
    found = counting.count(supernet, image(8, 8, 3), alphas, train=False)
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


def test_parameters_of_a_tree() -> None:
    shapes = {
        "a": jax.ShapeDtypeStruct((3, 4), jnp.float32),
        "b": {"c": jnp.zeros(5), "d": jnp.ones(())},
    }
    assert counting.parameters(shapes) == 18


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
@pytest.mark.parametrize("name", list(GENOTYPES)[::4])
def test_the_fitted_width_is_the_largest(name: str, evaluation: widths.Evaluation) -> None:
    genotype = GENOTYPES[name]
    width = widths.fit_width(genotype, evaluation)

    def value(width: int) -> int:
        return int(getattr(evaluation.count(genotype, width), evaluation.fitted))

    low, high = evaluation.limits
    assert width % 2 == 0
    assert low <= value(width) <= high < value(width + 2)


def test_no_width_fits_a_huge_cell() -> None:
    pairs = (("conv_7x1_1x7", 0), ("conv_7x1_1x7", 1)) * 12
    concat = tuple(range(2, 14))
    wide = Genotype(pairs, concat, pairs, concat)
    message = "no even width has 500 to 600 million multiply-adds .*: .* at 10, .* at 12; give"
    with pytest.raises(UserError, match=message):
        widths.fit_width(wide)
    narrow = dataclasses.replace(widths.IMAGENET, limits=(1_000_000, 2_000_000))
    with pytest.raises(UserError, match=r"\): [\d.]* at 2; give"):
        widths.fit_width(wide, narrow)
    assert widths.evaluation_sizes(wide)[0]["width"] == 48


def test_a_width_whose_counts_are_no_polynomial_is_searched_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def counted(self: Any, genotype: Genotype, width: int) -> Any:
        products = 10_000_000 * (width + 8 * (width // 20))
        return counting.Counts((counting.Layer("conv", 1, products),))

    monkeypatch.setattr(widths.Evaluation, "count", counted)
    # 44 + 16 channels have 600 million, the most allowed.
    assert widths.fit_width(GENOTYPES["darts_v2"]) == 44


def test_counting_a_network_like_one_before_takes_no_time() -> None:
    """Thousands are drawn for a sample: what was traced for one is known for all."""
    sampling.parameters(sampling.draw_darts(0, 0))
    start = time.process_time()
    for number in range(400):
        sampling.parameters(sampling.draw_darts(0, number))
    # 2 s measured; tracing each would take 40.
    assert time.process_time() - start < 20


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "main.py", "complexity", *arguments],
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
    """Table 2's row, which a training counts as the command does: not at its crops."""
    from configs import eval_cityscapes

    config = eval_cityscapes.get_config("darts_v2").to_dict()
    counts = complexity.of_config(config)
    same = widths.CITYSCAPES.count(GENOTYPES["darts_v2"], CITYSCAPES_WIDTHS["darts_v2"])
    assert counts["input_size"] == [1025, 2049]
    assert {name: counts[name] for name in same.totals()} == same.totals()
    assert counts["multiply_adds"] / 1e9 == pytest.approx(98.9, abs=0.05)
    config["eval"]["crop"] = "centre"
    assert complexity.of_config(config)["multiply_adds"] / 1e9 == pytest.approx(28.2, abs=0.05)


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


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_time_and_memory_of_a_small_network(capsys):
    """Memory against what XLA cannot do without: weights, images and logits."""
    config = conftest.ROOT / "configs" / "eval_photos.py"
    small = ["--config.input.crop=16", "--config.network.width=4", "--config.network.cells=3"]
    space = ["--config.network.space=nasbench201", "--config.network.stem=cifar"]
    space.append(f"--config.network.genotype={handmade.SMALL['genotype']}")
    arguments = [f"--config={config}", *small, *space, "--json", "--time", "--batch=3"]
    assert complexity_command.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    measured = found["measured"]
    least = 4 * (found["parameters"] + 3 * 16 * 16 * 3 + 3 * 11)
    assert least < measured["memory_bytes"] < 1000 * least and measured["batch"] == 3
    assert 0 < measured["milliseconds"] <= measured["milliseconds_90"]
    per_second = 3000 / measured["milliseconds"]
    assert measured["answers_per_second"] == pytest.approx(per_second)
    assert complexity_command.main([f"--config={config}", "--time", "--batch=0"]) == 2
    assert "--batch=0: must be at least 1" in capsys.readouterr().err
