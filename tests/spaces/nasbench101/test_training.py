"""Trainings in the space: every task learns, whole runs, and mistakes in configs."""

import json
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
import pytest

from tests import tiny_training
from unnas_jax.config.sections import Training
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.layers import counting
from unnas_jax.learning import trainer
from unnas_jax.runs import train, validation
from unnas_jax.spaces import complexity, networks
from unnas_jax.spaces.nasbench101.spec import parse
from unnas_jax.tasks import registry
from unnas_jax.tasks.base import example_shapes

pytestmark = pytest.mark.usefixtures("on_one_device")

# A straight edge, channels cut by one (of 5), and all three operations.
CELL = "01101-00011-00001-00001-00000:conv3x3,conv1x1,maxpool3x3"


def config(task: str = "classification", **network: Any) -> ml_collections.ConfigDict:
    c = tiny_training.config(batch_size=8)
    c.network.update(space="nasbench101", genotype=CELL, width="6", stacks=2, modules=1)
    c.network.update(network)
    c.task.update(name=task, grid=2, permutations=24)
    if task == "jigsaw":
        c.input.update(crop=22, resize=22)  # Of 2x2 tiles of 8 pixels.
    return c


@pytest.mark.parametrize("task_name", ["classification", "rotation", "colorization", "jigsaw"])
def test_every_task_learns(task_name: str) -> None:
    c = config(task_name).to_dict()
    validation.validate(ml_collections.ConfigDict(c))
    task = registry.create(c, complexity._Facts("fake", 3))
    mesh = sharding.data_mesh(jax.devices()[:1])
    inputs = example_shapes(c, task).inputs
    network = networks.build_network(c, task)
    steps = trainer.build_steps(Training.of(c), network, task, mesh, 10, inputs)
    state = steps.init([0])
    before = jax.device_get(state.params)
    counted = complexity.of_network(c, task, network)
    assert counting.parameters(before) == counted.parameters
    images = tiny_training.images(8)
    crop = c["input"]["crop"]
    images["image"] = np.tile(images["image"], (1, 2, 2, 1))[:, :crop, :crop]
    batch = trainer.stack_seeds([images], mesh)
    losses = []
    for _ in range(5):
        state, sums = steps.train(state, batch)
        losses.append(float(sums["loss"][0] / sums["count"][0]))
    assert 0.3 < losses[0] / np.log(task.num_classes) < 3
    assert np.all(np.isfinite(losses))
    # Every parameter has a gradient, and none is NaN.
    change = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, state.params)
    assert all(0 < value < 10 for value in jax.tree.leaves(change)), change
    if task_name in ("classification", "colorization"):  # The others draw new puzzles each step.
        assert losses[-1] < losses[0]


def _result(c: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    c.train.max_steps = 2
    c.seeds = 1
    c.eval.max_images = 16
    return train.train(c, str(workdir))


def test_a_run_keeps_the_cell_of_its_file(tmp_path: pathlib.Path) -> None:
    path, workdir = tmp_path / "cell.json", tmp_path / "w"
    document = {**parse(CELL).as_dict(), "drawn_with_seed": 0}
    path.write_text(json.dumps(document))
    result = _result(config(genotype=str(path)), workdir)
    assert result["finished"] and result["step"] == 2
    assert (result["space"], result["width"], result["cells"]) == ("nasbench101", 6, 2)
    assert result["cells_used"] == parse(CELL).as_dict()
    assert result["genotype_source"] is None
    assert json.loads((workdir / "genotype.json").read_text()) == document
    # The same cell again is fine, another one is not.
    assert _result(config(genotype=str(path)), workdir) == result
    other = parse(CELL.replace("conv1x1", "conv3x3"))
    path.write_text(json.dumps(other.as_dict()))
    with pytest.raises(UserError, match="other cells than .*cell.json.*conv3x3"):
        _result(config(genotype=str(path)), workdir)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"genotype": "darts_v2"}, ["'darts_v2'", "0110-0001-0001-0000:conv3x3,maxpool3x3"]),
        ({"genotype": "nowhere.json"}, ["cannot read nowhere.json"]),
        ({"genotype": "0110-0001-0001-0000:conv3x3,conv9x9"}, ["vertex 2", "conv9x9"]),
        ({"space": "nasbench301"}, ["config.network.space='nasbench301'", "nasbench101"]),
        ({"width": "fit"}, ["config.network.width='fit'", "128"]),
        ({"width": "7"}, ["config.network.width='7'"]),
        ({"stacks": 0}, ["config.network.stacks=0"]),
        ({"modules": 0}, ["config.network.modules=0"]),
        (
            {"auxiliary_weight": 0.4},
            ["config.network.auxiliary_weight=0.4", "use --config.network.auxiliary_weight=0"],
        ),
        ({"drop_path": 0.2}, ["config.network.drop_path=0.2", "use --config.network.drop_path=0"]),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        validation.validate(config(**changes))
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ["not JSON"]),
        ("[]", ["space is None", "nasbench101"]),
        ('{"space": "darts"}', ["'darts'"]),
        ('{"space": "nasbench101", "matrix": [[0, 1], [0, 0]]}', ["operations"]),
    ],
)
def test_files_that_hold_no_cell(content: str, words: list[str], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "cell.json"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        validation.validate(config(genotype=str(path)))
    assert all(word in str(error.value) for word in [str(path), *words]), error.value


def test_too_many_stacks_for_the_images(tmp_path: pathlib.Path) -> None:
    c = config("jigsaw", stacks=5)
    # Tiles of 8 pixels: 4, 2 and 1 after three poolings.
    with pytest.raises(UserError, match=r"config.network.stacks=5: inputs of 8 pixels .*crop"):
        _result(c, tmp_path / "w")
    assert not (tmp_path / "w" / "checkpoints").exists()
