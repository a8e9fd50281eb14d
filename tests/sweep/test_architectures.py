"""Samples of architectures: the published window, seeds, lists of users, mistakes."""

import collections
import json
import pathlib

import numpy as np
import pytest

from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts import genotype as darts
from unnas_jax.spaces.darts import sampling
from unnas_jax.spaces.darts.candidates import OPERATIONS
from unnas_jax.spaces.nasbench101 import spec as nasbench101
from unnas_jax.sweep import architectures

TEXT = "none:0,skip_connect:0+max_pool_3x3:1,sep_conv_3x3:1"


def test_the_published_window() -> None:
    """The paper's 500 have 0.685 to 0.906M parameters, in the median 0.734M; 18% of draws do."""
    sizes = np.array([sampling.parameters(sampling.draw_darts(0, k)) for k in range(400)])
    inside = sizes[(sizes >= 685_000) & (sizes <= 906_000)]
    assert len(inside) / len(sizes) == pytest.approx(0.18, abs=0.06)
    assert np.median(inside) == pytest.approx(0.734e6, rel=0.015)
    # The largest of all are not far above the window: what it leaves out are the small ones.
    assert np.mean(sizes > 906_000) < 0.03


def test_draws_are_uniform_with_replacement() -> None:
    pairs = [
        (node, *pair)
        for number in range(500)
        for node, pair in enumerate(sampling.draw_darts(1, number).normal)
    ]
    operations = collections.Counter(operation for _, operation, _ in pairs)
    assert set(operations) == set(OPERATIONS)  # `none` included.
    assert all(abs(count - 500) < 5 * np.sqrt(500) for count in operations.values())
    last = collections.Counter(source for node, _, source in pairs if node // 2 == 3)
    assert set(last) == set(range(5))
    assert all(abs(count - 200) < 5 * np.sqrt(200) for count in last.values())
    same = [
        sampling.draw_darts(1, number).normal[6][1] == sampling.draw_darts(1, number).normal[7][1]
        for number in range(500)
    ]
    assert np.mean(same) == pytest.approx(1 / 5, abs=0.08)  # Both pairs may share an input.


def test_a_seed_gives_its_sample_and_a_larger_one_begins_with_it() -> None:
    wide = (0, 10_000_000)
    ten = sampling.sample_darts(10, 3, nodes=2, window=wide)
    assert ten == sampling.sample_darts(10, 3, nodes=2, window=wide)
    assert sampling.sample_darts(4, 3, nodes=2, window=wide) == ten[:4]
    assert len(set(ten)) == 10
    assert sampling.sample_darts(4, 4, nodes=2, window=wide) != ten[:4]
    window = (700_000, 10_000_000)
    sizes = map(sampling.parameters, sampling.sample_darts(2, 0, window=window))
    assert min(sizes) >= 700_000


def test_an_empty_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_MAX_DRAWS_EACH", 20)
    with pytest.raises(UserError, match=r"sample.parameters=\(1, 2\): of 20 random cells"):
        sampling.sample_darts(1, 0, nodes=1, window=(1, 2))


def test_lists_in_all_their_forms(tmp_path: pathlib.Path) -> None:
    cell = darts.parse(TEXT)
    forms = {
        "lines.txt": f"# Two cells.\n{TEXT}\n\ndarts_v2\n",
        "texts.json": json.dumps([TEXT, "darts_v2"]),
        "dicts.json": json.dumps([cell.as_dict(), {"name": "any", "cell": "darts_v2"}]),
    }
    found = []
    for name, content in forms.items():
        (tmp_path / name).write_text(content)
        found.append(architectures.read(str(tmp_path / name), "darts"))
    assert found[0] == found[1] == found[2]
    assert darts.parse(found[0][0].cell) == cell
    architectures.write(str(tmp_path / "written.json"), found[0], {"space": "darts"})
    assert architectures.read(str(tmp_path / "written.json"), "darts") == found[0]


def test_isomorphic_cells_are_one_architecture(tmp_path: pathlib.Path) -> None:
    one, other = (
        f"0110-0001-0001-0000:{names}" for names in ("conv3x3,maxpool3x3", "maxpool3x3,conv3x3")
    )
    assert nasbench101.identity(nasbench101.parse(one)) == nasbench101.identity(
        nasbench101.parse(other)
    )
    (tmp_path / "two").write_text(f"{one}\n{other}\n")
    with pytest.raises(UserError, match="entries 1 and 2 are the same cell"):
        architectures.read(str(tmp_path / "two"), "nasbench101")


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "is empty"),
        ("[1", "is not JSON"),
        ('{"cells": []}', "no list under the key 'architectures'"),
        ("[3]", "entry 1: expected a cell, got 3"),
        (f"darts_v2\n{TEXT}x\n", "entry 2: genotype"),
        ("darts_v2\nnobody\n", "entry 2: genotype 'nobody'"),
    ],
)
def test_mistakes_in_lists(content: str, words: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "list"
    path.write_text(content)
    with pytest.raises(UserError, match=words) as error:
        architectures.read(str(path), "darts")
    assert "\n" not in str(error.value) and str(path) in str(error.value)
