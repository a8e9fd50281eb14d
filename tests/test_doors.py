"""A task, a dataset and a space from outside run like those of the package."""

import dataclasses
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import unnas_jax as un
from tests import conftest, tiny, tiny_training
from unnas_jax.analysis import pictures
from unnas_jax.data import decoding

pytestmark = pytest.mark.usefixtures("on_one_device")
SEARCH = {
    "network": {"cells": 3, "nodes": 1, "width": 4, "operations": tiny.FEW},
    "input": {"crop": 16, "resize": 18},
    "train": {"batch_size": 8, "max_steps": 2},
    "eval": {"batch_size": 16, "max_images": 16},
    "workers": 0,
}


def page_shows(name: str, toy: str) -> bool:
    page = (conftest.ROOT / "docs" / "walks" / f"{name}.md").read_text()
    code = (conftest.ROOT / "tests" / f"{toy}.py").read_text().split('"""', 2)[2].strip()
    return f"```python\n{code}\n```" in page


@pytest.mark.parametrize("name", ["task", "dataset", "space"])
def test_the_pages_show_these_files(name) -> None:
    assert page_shows(name, f"toy_{name}")


def test_the_page_of_spaces_shows_one_with_programs_for_many_cells() -> None:
    assert page_shows("space", "toy_sharing_space")


def toy(name: str) -> None:
    importlib.import_module(f"tests.toy_{name}")


def test_a_task_from_outside_is_searched_with(tmp_path: pathlib.Path) -> None:
    toy("task")
    images = np.stack(tiny.upright(64, 20))
    found = un.search(images, tmp_path / "w", task="mirroring", **SEARCH)
    assert found.finished and found.document["task"] == "mirroring"
    assert found.records["start"][0]["num_classes"] == 2
    assert found.chance == pytest.approx(0.5)
    assert (tmp_path / "w" / "report.html").exists()
    with pytest.raises(un.UserError, match="config.task.name='mirorring': .*mirroring"):
        un.search(images, tmp_path / "v", task="mirorring", **SEARCH)


@pytest.mark.usefixtures("no_reports")
def test_a_dataset_from_outside_is_trained_and_searched_on(tmp_path: pathlib.Path) -> None:
    toy("dataset")
    config = tiny.config("classification")
    config.dataset.name = "stripes"
    found = un.search(config, tmp_path / "search", **SEARCH)
    assert found.document["dataset"] == "stripes"
    assert found.records["start"][0]["num_classes"] == 2
    config = tiny_training.config(batch_size=8, epochs=1)
    config.dataset.name, config.seeds, config.workers = "stripes", 1, 0
    config.network.genotype = str(found.genotype)
    result = un.train(config, tmp_path / "train")
    assert result["dataset"] == "stripes" and result["finished"]
    module, variables, preprocessing = un.load_network(tmp_path / "train")
    section = {"name": "stripes"}
    held = un.open_dataset(section).splits["validation"]
    answers = np.argmax(jax.jit(module.apply)(variables, preprocessing(held.images)), axis=-1)
    assert np.mean(answers == held.labels) == pytest.approx(result["values"][0])


def test_a_space_from_outside_is_trained(tmp_path: pathlib.Path) -> None:
    toy("space")
    config = tiny_training.config(batch_size=8, epochs=1, max_steps=2)
    config.dataset.name = "an_array_for_a_space"
    images = np.stack(tiny.upright(24, 20))
    un.register_dataset("an_array_for_a_space", un.arrays(images, np.arange(24) % 2))
    config.seeds, config.workers = 1, 0
    config.network.update(space="chains", genotype="3-1")
    result = un.train(config, tmp_path / "w")
    assert result["finished"] and result["cells_used"] == {"sizes": [3, 1]}
    # By hand: stem 3x3, 3 to 12 channels; 12 to 4 by 3x3, 4 to 4 by 1x1; batch norms; the head.
    weights = 9 * 3 * 12 + 9 * 12 * 4 + 4 * 4
    assert result["parameters"] == weights + 2 * (12 + 4 + 4) + 4 * 2 + 2
    module, variables, preprocessing = un.load_network(tmp_path / "w")
    assert jax.jit(module.apply)(variables, preprocessing(images[:3])).shape == (3, 2)
    module = un.Network("5-3", width=4, classes=3, space="chains")
    variables = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 8, 8, 3)))
    assert variables["params"]["head"]
    with pytest.raises(un.UserError, match="config.network.genotype='7': give sizes"):
        un.train(config, tmp_path / "v", "7")


def test_cells_from_outside_are_drawn(tmp_path: pathlib.Path) -> None:
    from tests.toy_space import Kernels

    un.draw(Kernels((3, 1, 5))).savefig(tmp_path / "chain.svg")
    pictures.write_cells(str(tmp_path), Kernels((3, 1, 5)), None, None)
    for path in (tmp_path / "chain.svg", tmp_path / "cells.svg"):
        svg = path.read_text()
        drawn = re.findall(r'id="chain-edge-(\d)-(\w+)-from-(\d)"', svg)
        assert drawn == [("0", "conv_3x3", "0"), ("1", "conv_1x1", "1"), ("2", "conv_5x5", "2")]
    for change, words in [
        ({"labels": ["0"]}, "graph 'Chain': give one label a state"),
        ({"weights": []}, "give one weight an edge"),
        ({"edges": [("conv_3x3", 1, 1)]}, "give edges from states to later ones"),
        ({"concat": [2]}, "give concat among the states"),
    ]:
        (chain,) = Kernels((3,)).graphs()
        with pytest.raises(un.UserError, match=words):
            dataclasses.replace(chain, **change)
    with pytest.raises(un.UserError, match="draw: int is nothing that can be drawn"):
        un.draw(3)


def test_what_is_registered_is_in_every_registry_once() -> None:
    for name in ("task", "dataset", "space"):
        toy(name)
    from tests.methods.toy import Shared
    from tests.toy_task import Mirroring

    class Other(Mirroring):
        """Not the one that has the name."""

    class OtherMethod(Shared):
        """The same."""

    for register, words in [
        (lambda: un.register_task(Other), "task 'mirroring': the name is taken by tests.toy_task"),
        (
            lambda: un.register_dataset("photos", un.arrays(np.zeros((1, 8, 8, 3), np.uint8))),
            "taken",
        ),
        (lambda: un.register_space("darts", None), "space 'darts': the name is taken"),
        (lambda: un.register_method(OtherMethod), "search method 'shared': the name is taken"),
        (lambda: un.register_dataset("a:b", lambda section: None), "give a name of letters"),
    ]:
        with pytest.raises(un.UserError, match=words):
            register()
    assert un.register_task(Mirroring) is Mirroring and un.register_method(Shared) is Shared
    for value in (3, 4):  # A cell with other images.
        images = np.full((2, 8, 8, 3), value, np.uint8)
        un.register_dataset("of_a_cell", un.arrays(images))
        records = un.open_dataset("of_a_cell").splits["train"]
        assert decoding.decode(records[0]["image"], apply_exif=False).max() == value


def test_a_registered_name_is_that_of_a_command_too(tmp_path: pathlib.Path) -> None:
    """A recipe that imports the file runs by the command line, in a process of its own."""
    recipe = tmp_path / "mine.py"
    recipe.write_text(
        "from tests import tiny, toy_dataset, toy_task\n\n\n"
        "def get_config():\n"
        "    config = tiny.quick('mirroring', max_steps=1)\n"
        "    config.dataset.name = 'stripes'\n"
        "    return config\n"
    )
    done = subprocess.run(
        [sys.executable, "main.py", f"--config={recipe}", f"--workdir={tmp_path / 'w'}"],
        cwd=conftest.ROOT,
        env={**os.environ, "XLA_FLAGS": conftest.QUICK, "PYTHONPATH": str(conftest.ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "w" / "genotype.json").read_text())
    assert (document["dataset"], document["task"]) == ("stripes", "mirroring")
