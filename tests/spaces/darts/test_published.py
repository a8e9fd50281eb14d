"""Tests of the published genotypes and of how a genotype is named."""

import json
import pathlib

import pytest

from unnas_jax.config import recipes
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts import candidates, published
from unnas_jax.spaces.darts import genotype as genotype_lib


def test_twenty_distinct_cells() -> None:
    assert len(published.GENOTYPES) == 20
    assert len(set(published.GENOTYPES.values())) == 20
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
