"""Published sizes of cells, and the widths that keep to the paper's windows."""

import dataclasses
from typing import Any

import pytest

from unnas_jax.config.recipes import CITYSCAPES_WIDTHS, IMAGENET_WIDTHS
from unnas_jax.core.errors import UserError
from unnas_jax.layers import counting
from unnas_jax.spaces.darts import widths
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.darts.published import GENOTYPES

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
