"""Padded networks: equal to the cells' own, and few."""

import pytest

from tests.spaces.one_program import assert_same, network101
from unnas_jax.spaces.nasbench101 import padded, space
from unnas_jax.spaces.nasbench101.spec import parse
from unnas_jax.sweep.scores import weights

CELLS = (
    "01-00:",  # No vertex at all.
    "011-001-000:conv3x3",
    # Two vertices before the output, three channels of six and five of ten; a truncated edge.
    "0100100-0010010-0001000-0000001-0000010-0000001-0000000:"
    "conv3x3,maxpool3x3,conv3x3,conv3x3,conv3x3",
    # One that feeds the output beside one that does not, and the input straight to the output.
    "0100001-0011000-0001001-0000100-0000010-0000001-0000000:"
    "maxpool3x3,conv1x1,maxpool3x3,conv1x1,conv3x3",
)


@pytest.mark.parametrize("text", CELLS)
def test_a_padded_network_computes_what_the_cell_s_does(text: str) -> None:
    """Five channels do not divide by two: the first vertex has one more."""
    assert_same(space.program(network101(parse(text), 5)), 8)


def test_cells_share_programs() -> None:
    made = [space.program(network101(parse(text), 5)).network for text in CELLS]
    assert [padded.feeding(parse(text)) for text in CELLS] == [1, 1, 2, 2]
    assert made[0] == made[1] != made[2] == made[3]


def test_the_stem_for_large_images_is_that_of_the_cell_s_network() -> None:
    own = network101(parse(CELLS[0]), 4)
    program = space.program(own.clone(stem="imagenet", stacks=1))
    assert "stem_2" in {path[1] for path in weights.shapes(program.network, (16, 16, 3))}
    assert_same(program, 16)
