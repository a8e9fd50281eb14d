"""Tests of the published genotypes and of how a genotype is named."""

import collections
import json
import pathlib

import pytest

from unnas_jax.config import recipes
from unnas_jax.core.errors import UserError
from unnas_jax.layers.heads import ImageHead
from unnas_jax.spaces.darts import candidates, published
from unnas_jax.spaces.darts import genotype as genotype_lib
from unnas_jax.spaces.darts.network import Network
from unnas_jax.spaces.darts.parameters import parameters_of


def test_distinct_cells() -> None:
    assert len(published.GENOTYPES) == 25
    assert len(set(published.GENOTYPES.values())) == 25
    assert recipes.IMAGENET_WIDTHS.keys() <= published.GENOTYPES.keys()
    assert recipes.CITYSCAPES_WIDTHS.keys() <= recipes.IMAGENET_WIDTHS.keys()


def test_some_as_printed_by_their_authors() -> None:
    darts = published.GENOTYPES["darts_v2"]
    assert darts.normal == (
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2),
    )  # fmt: skip
    assert darts.reduce == (
        ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
        ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1),
    )  # fmt: skip
    amoeba = published.GENOTYPES["amoebanet"]
    assert amoeba.reduce[8:] == (("conv_7x1_1x7", 0), ("sep_conv_3x3", 5))
    assert (amoeba.normal_concat, amoeba.reduce_concat) == ((4, 5, 6), (3, 4, 6))
    rotation = published.GENOTYPES["unnas_in22k_rot"]
    assert rotation.normal == (("sep_conv_3x3", 0), ("sep_conv_3x3", 1)) * 4


def test_the_paper_s_cells_use_the_search_space_only() -> None:
    for name, genotype in published.GENOTYPES.items():
        if name in ("nasnet", "pnasnet", "amoebanet"):
            continue
        for pairs in (genotype.normal, genotype.reduce):
            assert len(pairs) == 8
            assert {operation for operation, _ in pairs} <= set(candidates.OPERATIONS[1:])
        assert genotype.normal_concat == genotype.reduce_concat == (2, 3, 4, 5)


def test_a_node_of_the_paper_s_cells_takes_two_states() -> None:
    for name, genotype in published.GENOTYPES.items():
        if name.startswith("unnas"):
            for pairs in (genotype.normal, genotype.reduce):
                sources = [source for _, source in pairs]
                assert all(a != b for a, b in zip(sources[::2], sources[1::2], strict=True)), name


# Parameters on CIFAR-10 (20 cells of width 36) and on ImageNet-1K (14 of 48, no auxiliary head),
# counted apart from this package. What the authors print agrees, but 3.4M for sdarts_rs.
SIZES = {
    "pcdarts_c10": (3_634_678, 5_270_560),
    "pcdarts_in1k": (3_721_510, 5_342_464),
    "pdarts": (3_433_798, 4_944_352),
    "sdarts_rs": (3_606_166, 5_120_320),
    "sdarts_adv": (3_344_806, 4_768_864),
    "rlnas_c10": (4_034_710, 5_674_720),
    "rlnas_600m": (3_836_638, 5_463_616),
    "rlnas_free": (4_770_838, 6_618_976),
}


def test_sizes() -> None:
    for name, expected in SIZES.items():
        genotype = published.GENOTYPES[name]
        cifar = Network(genotype, 36, 20, "cifar", head=ImageHead(10))
        imagenet = Network(genotype, 48, 14, "imagenet", head=ImageHead(1000))
        found = parameters_of(cifar, (32, 32, 3)), parameters_of(imagenet, (224, 224, 3))
        assert found == expected, name


def test_random_cells() -> None:
    drawn = [published.resolve(f"random_{seed}") for seed in range(300)]
    assert len(set(drawn)) == 300 and drawn[7] == published.random_cells(7)
    counts = collections.Counter[tuple[int, str]]()
    for genotype in drawn:
        for pairs in (genotype.normal, genotype.reduce):
            for node in range(4):
                (_, a), (_, b) = pairs[2 * node : 2 * node + 2]
                assert a < b < node + 2
            counts.update((k, operation) for k, (operation, _) in enumerate(pairs))
    assert {operation for _, operation in counts} == set(candidates.OPERATIONS[1:])
    # 600 draws of probability 1/7 at each place: a deviation of 8.6.
    assert all(50 < count < 125 for count in counts.values())


def test_names_files_and_workdirs(tmp_path: pathlib.Path) -> None:
    pdarts = published.GENOTYPES["pdarts"]
    assert published.resolve("pdarts") == pdarts
    path = tmp_path / "genotype.json"
    path.write_text(json.dumps({"schema": genotype_lib.SCHEMA, "genotype": pdarts.as_dict()}))
    assert published.resolve(str(path)) == pdarts
    assert published.resolve(str(tmp_path)) == pdarts


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unnas_in1k_rott", r"'unnas_in1k_rott'.*did you mean unnas_in1k_rot"),
        ("darts", "did you mean pdarts or darts_v"),
        ("resnet50", "neither a published name nor a genotype.json; names: nasnet"),
        ("runs/missing/genotype.json", "cannot read runs/missing/genotype.json"),
    ],
)
def test_what_does_not_exist_is_named(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        published.resolve(name)
    assert "\n" not in str(caught.value)
