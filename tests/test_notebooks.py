"""The notebooks in docs/notebooks run from their first cell to their last, at toy size."""

import json
import pathlib
from typing import Any

import matplotlib
import numpy as np
import pytest

from tests import conftest, tiny_training
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.sweep import local_engine, units
from unnas_jax.tasks import registry

FOLDER = conftest.ROOT / "docs" / "notebooks"
# Two operations an edge: there is less to trace.
NETWORK = {
    "cells": 3,
    "nodes": 1,
    "width": 4,
    "operations": ("skip_connect", "sep_conv_3x3"),
}
# The alphas move in the second: nothing has to be compiled for them.
ONE_EPOCH = {"batch_size": 8, "epochs": 2, "max_steps": 2}
TOY: dict[str, dict[str, Any]] = {
    "own_images": {
        "CROPS": 32,
        "SIDE": 16,
        "NETWORK": {**NETWORK, "stem": "cifar"},
        "TRAIN": ONE_EPOCH,
    },
    "own_loop": {"STEPS": 3, "BATCH": 8, "NETWORK": NETWORK},
    "pretext_task": {
        "CROPS": 32,
        "SIDE": 16,
        "NETWORK": NETWORK,
        "TRAIN": ONE_EPOCH,
    },
    "rank_cells": {
        "BY": "multiply_adds,parameters",
        "SEEDS": 1,
        "CROPS": 16,
        "MORE": ["--batch=4", "--side=8", "--width=4"],
    },
    "cell_to_network": {
        "CELL": str(tiny_training.CELLS),
        "NETWORK": {"cells": 3, "width": "4", "drop_path": 0.0},
        "TRAIN": {"batch_size": 8, "epochs": 1, "max_steps": 4},
    },
}
"""By notebook, what replaces the values of its cell with the tag `parameters`."""

pytestmark = pytest.mark.filterwarnings(  # Of ml_collections, when it reads a recipe.
    "ignore:the load_module:DeprecationWarning"
)


def cells(name: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]


@pytest.fixture
def run(on_one_device, tmp_path, monkeypatch):
    """Executes a notebook in a folder of its own and returns its names."""
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")

    def execute(name: str) -> dict[str, Any]:
        names: dict[str, Any] = {"__name__": "__main__"}
        for number, cell in enumerate(cells(name)):
            if cell["cell_type"] == "code":
                code = "".join(cell["source"])
                exec(compile(code, f"{name}.ipynb, cell {number}", "exec"), names)
                if "parameters" in cell["metadata"].get("tags", ()):
                    assert TOY[name].keys() <= names.keys()
                    names.update(TOY[name])
        return names

    return execute


def test_all_of_them_are_run_here_and_kept_without_outputs() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(TOY)
    installs = []
    for name in TOY:
        code = [cell for cell in cells(name) if cell["cell_type"] == "code"]
        assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
        assert sum("parameters" in cell["metadata"].get("tags", ()) for cell in code) == 1
        installs.append("".join(code[0]["source"]))
    assert len(set(installs)) == 1 and "pip" in installs[0]


def test_a_search_on_own_images(run) -> None:
    names = run("own_images")
    assert names["found"].finished and isinstance(names["found"].genotype, Genotype)
    assert names["found"].chance == 0.25 and names["images"].shape == (32, 16, 16, 3)


def test_a_loop_of_one_s_own(run) -> None:
    names = run("own_loop")
    assert int(names["state"].step) == 3 and len(names["curves"]) == 3
    assert isinstance(names["genotype"], Genotype) and names["parameters"] > 0


def test_a_task_is_added(run, monkeypatch) -> None:
    monkeypatch.setattr(registry.TASKS, "_items", dict(registry.TASKS))
    names = run("pretext_task")
    assert names["found"].document["task"] == "channel_order"
    assert names["found"].chance == pytest.approx(1 / 3)
    inputs, count = np.asarray(names["examples"].inputs), 5
    for k in range(3):  # What was red is green, then blue.
        np.testing.assert_array_equal(
            inputs[k * count : (k + 1) * count, ..., k], inputs[:count, ..., 0]
        )
    assert list(names["examples"].targets) == [0] * 5 + [1] * 5 + [2] * 5


def test_cells_are_ranked(run, monkeypatch) -> None:
    monkeypatch.setattr(local_engine, "devices", lambda: ("cpu", 1))
    monkeypatch.setattr(  # Processes cost seconds to start.
        local_engine,
        "run",
        lambda store, todo, work, *rest, **options: units.work_off(store, todo, work),
    )
    names = run("rank_cells")
    (judge, _) = names["ranking"]["judges"]
    order = [names["ranking"]["cells"][row["name"]] for row in judge["architectures"]]
    lines = names["CELLS"].splitlines()
    # By their convolutions, of 9 and of 1 weights: 5 of 3x3; 2 and 1; 1; none and 4; none.
    assert order == [lines[0], lines[1], lines[3], lines[2], lines[4]]


def test_a_cell_becomes_a_network(run) -> None:
    names = run("cell_to_network")
    assert names["result"]["finished"] and names["logits"].shape == (597, 10)
    np.testing.assert_allclose(names["exported"], names["logits"], atol=1e-4)
    assert pathlib.Path("exported/network.stablehlo").exists()
