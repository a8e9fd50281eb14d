"""Adds an operation, one function and one line, searches with it and trains what comes of it.

The page docs/walks/operation.md tells the same.
"""

import inspect
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

import unnas_jax as un
from tests import conftest, tiny, tiny_training
from unnas_jax.analysis import report
from unnas_jax.core.errors import UserError
from unnas_jax.layers.blocks import ReluConvBN
from unnas_jax.runs.search import search
from unnas_jax.runs.train import train
from unnas_jax.spaces.darts import genotype, parameters
from unnas_jax.spaces.darts.operations import BUILDERS

pytestmark = pytest.mark.usefixtures("on_one_device")


def conv_5x5(**setting: Any) -> nn.Module:
    return ReluConvBN(kernel=(5, 5), **setting)


@pytest.fixture(scope="module")
def registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BUILDERS, "_items", dict(BUILDERS))  # Taken back after these tests.
        BUILDERS.register("conv_5x5", conv_5x5)
        yield


OPERATIONS = {"normal": ("none", "conv_5x5"), "reduce": (("noise",), ("conv_5x5", "noise"))}


@pytest.fixture(scope="module")
def searched(
    registered: None,
    on_one_device: None,
    images: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> pathlib.Path:
    config = tiny.config(epochs=1, max_steps=2)
    config.dataset.update(name="folder", path=str(images))
    config.network.nodes = 1
    with config.ignore_type():
        config.network.operations = OPERATIONS
    config.workers = 0
    workdir = tmp_path_factory.mktemp("search")
    search(config, str(workdir))
    return workdir


def test_a_search_with_it(searched: pathlib.Path) -> None:
    document = json.loads((searched / "genotype.json").read_text())
    assert document["finished"]
    assert document["operations"] == {
        "normal": [["none", "conv_5x5"]] * 2, "reduce": [["noise"], ["conv_5x5", "noise"]]
    }  # fmt: skip
    # An edge of one operation has no choice; the others' weights have moved from 1/2.
    normal, reduce = (document["alphas_softmax"][kind] for kind in ("normal", "reduce"))
    assert [len(row) for row in normal + reduce] == [2, 2, 1, 2]
    assert reduce[0] == [1.0]
    assert all(abs(row[0] - 0.5) > 1e-3 for row in (*normal, reduce[1]))
    cells = genotype.load(searched / "genotype.json")[0]
    assert [operation for operation, _ in cells.normal] == ["conv_5x5"] * 2
    with np.load(searched / "alphas.npz") as history:
        assert history["reduce"].shape[1:] == (2, 2)
        assert not np.any(history["reduce"][:, 0, 1])
    # Pictures and report name them.
    report.write(searched)
    for name in ("cells.svg", "report.html"):
        assert "conv_5x5" in (searched / name).read_text()


def test_a_training_with_it(searched: pathlib.Path, images: pathlib.Path) -> None:
    config = tiny_training.config(epochs=1, max_steps=2)
    config.seeds = 1
    config.dataset.update(name="folder", path=str(images))
    config.task.name = "rotation"
    config.network.genotype = str(searched / "genotype.json")
    config.workers = 0
    result = train(config, str(searched / "training"))
    assert result["finished"]
    assert 0 <= result["mean"] <= 1


def test_a_name_that_is_taken(registered: None) -> None:
    with pytest.raises(UserError, match="operation 'conv_5x5': the name is taken"):
        BUILDERS.register("conv_5x5", ReluConvBN)


def test_networks_forget_an_operation_that_an_edited_cell_replaces() -> None:
    """A network has the names of its operations: it equals one of before, and so do its traces."""
    x = np.ones((1, 8, 8, 3), np.float32)
    init = jax.jit(lambda network: network.init(jax.random.key(0), x)["params"], static_argnums=0)

    def cell(kernel: int) -> None:
        def edited(**setting: Any) -> nn.Module:
            return ReluConvBN(kernel=(kernel, kernel), **setting)

        BUILDERS.register("edited", edited)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BUILDERS, "_items", dict(BUILDERS))
        found = []
        for kernel in (1, 3):
            cell(kernel)
            network = un.Network(
                "edited:0,edited:1+skip_connect:0,skip_connect:1", width=4, depth=3, classes=2
            )
            size = sum(leaf.size for leaf in jax.tree.leaves(init.eval_shape(network)))
            assert parameters.parameters_of(network.network, (8, 8, 3)) == size
            found.append(size)
    # One normal cell with two of them, of 4 to 4 channels: 3 * 3 weights for every one.
    assert found[1] - found[0] == 2 * (9 - 1) * 4 * 4


def test_without_registration_its_cells_are_refused(searched: pathlib.Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BUILDERS, "_items", {k: v for k, v in BUILDERS.items() if k != "conv_5x5"})
        with pytest.raises(UserError, match="'conv_5x5'; .* or register it"):
            genotype.load(searched / "genotype.json")


def test_the_page_shows_this_operation() -> None:
    page = (conftest.ROOT / "docs" / "walks" / "operation.md").read_text()
    assert inspect.getsource(conv_5x5) in page
    assert 'BUILDERS.register("conv_5x5", conv_5x5)' in page
