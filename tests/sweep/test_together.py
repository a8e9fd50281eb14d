"""Units of a sweep that share a program: found again, several at once, stopped and continued."""

import dataclasses
import pathlib
from typing import Any

import ml_collections
import numpy as np
import pytest

from tests import tiny_training, toy_sharing_space, toy_space
from tests.spaces.one_program import assert_same
from unnas_jax.config import schema as config_lib
from unnas_jax.config import sweep_recipes
from unnas_jax.core.errors import UserError
from unnas_jax.runs import together, train
from unnas_jax.spaces.registry import SPACES
from unnas_jax.sweep import sample, unit_work, units, validation
from unnas_jax.sweep.architectures import Architecture
from unnas_jax.sweep.scores.programs import Classifier
from unnas_jax.sweep.units import Jointly, Store, Unit

CELLS = ("011-001-000:conv3x3", "0101-0010-0001-0000:conv1x1,maxpool3x3")


def config(**sweep: Any) -> ml_collections.ConfigDict:
    c = config_lib.sample()
    training = tiny_training.config(epochs=1, max_steps=4, max_images=32)
    training.seeds, training.workers, training.trackers = 2, 0, ()
    training.dataset.name = "digits"
    training.input.update(crop=8, resize=8, train_crop="none")
    training.network.update(space="nasbench101", width="4", stacks=1, modules=1)
    training.eval.update(batch_size=32, max_images=32)
    c.training = training.to_dict()
    c.tasks = ("rotation",)
    c.sweep.update(sweep)
    return c


def all_units(**sweep: Any) -> list[Unit]:
    cells = [Architecture(f"cell{k}", cell) for k, cell in enumerate(CELLS)]
    return sample.all_units(config(**sweep), cells)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of the units, one after the other by the shared program."""
    found = []
    for unit in all_units():
        result = unit_work.do_unit(unit.task, str(tmp_path_factory.mktemp("alone")))
        assert result is not None
        found.append(result)
    return found


def test_a_later_unit_compiles_nothing(alone: list[dict[str, Any]], tmp_path: pathlib.Path) -> None:
    """Not even its steps, which a program of its own would; by then arrays have known shapes."""
    first, second = (unit["compile"]["programs"] for unit in alone)
    assert first > 20 > second
    again = unit_work.do_unit(all_units()[1].task, str(tmp_path))
    assert again is not None and again["compile"]["programs"] == 0
    assert again["curve"] == alone[1]["curve"]


def test_units_together_find_what_each_finds_alone(
    alone: list[dict[str, Any]], tmp_path: pathlib.Path
) -> None:
    tasks = [unit.task for unit in all_units(together=2)]
    places = [str(tmp_path / str(k)) for k in range(2)]
    found = unit_work.train_units(tasks, places)
    assert found is not None
    for one, among in zip(alone, found, strict=True):
        own = ("values", "curve", "accuracy", "seconds", "compile", "finished_at")
        assert {k: v for k, v in among.items() if k not in own} == {
            k: v for k, v in one.items() if k not in own
        }
        # An answer or two of 32 may tip over by rounding.
        np.testing.assert_allclose(among["values"], one["values"], atol=0.05)
    assert found[0]["parameters"] != found[1]["parameters"]


def test_cells_together_continue_to_the_same_bits(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    def results(place: str, steps: int) -> Any:
        c = ml_collections.ConfigDict(all_units()[0].task["config"])
        c.train.max_steps = steps
        return train.train_cells(c, CELLS, str(tmp_path / place))

    whole = results("whole", 4)
    results("parts", 2)
    with caplog.at_level("INFO", "unnas_jax"):
        assert results("parts", 4) == whole
    assert "continuing at step 2" in caplog.text
    assert [(result["step"], len(result["loss"])) for result in whole] == [(4, 2), (4, 2)]


def test_units_of_one_kind_are_grouped() -> None:
    kinds = ("a", "b", "a", "", "a", "", "b", "a")
    todo = [Unit(str(k), None, kind) for k, kind in enumerate(kinds)]
    names = [[unit.name for unit in group] for group in units.groups(todo, 2)]
    assert names == [["0", "2"], ["1", "6"], ["3"], ["4", "7"], ["5"]]
    assert {unit.kind for unit in all_units()} == {"rotation 1"}
    assert {unit.kind for unit in all_units(program="own")} == {""}


def test_a_space_from_outside_gives_a_program_for_many_cells(tmp_path: pathlib.Path) -> None:
    """It computes what a cell's own does, and the second cell of a length compiles no steps."""
    space = toy_sharing_space.SharingChains()
    own = toy_space.Chain((5, 1), 4, "cifar", Classifier(4), np.float32)
    assert_same(space.program(own))
    c = config()
    c.training.network.update(space="sharing_chains", stacks=3, modules=3)
    validation.validate(c)
    cells = [Architecture(text, text) for text in ("3-1", "1-5", "3")]
    todo = sample.all_units(c, cells)
    assert [unit.kind for unit in todo] == ["rotation 2", "rotation 2", "rotation 1"]
    found = [unit_work.do_unit(unit.task, str(tmp_path / unit.name)) for unit in todo[:2]]
    first, second = (unit["compile"]["programs"] for unit in found if unit is not None)
    assert first > 5 + second
    c.training.network.space = "chains"
    assert {unit.kind for unit in sample.all_units(c, cells)} == {""}


@dataclasses.dataclass
class _Joint:
    """Notes what is done; fails where unit 2 is among others."""

    log: list[list[int]]
    stops: bool = False

    def __call__(self, tasks: Any, places: Any) -> Any:
        self.log.append(list(tasks))
        if self.stops:
            return None
        if 2 in tasks:
            raise ValueError("NaN")
        return [{"of": task} for task in tasks]


def test_a_group_that_fails_is_tried_in_halves(tmp_path: pathlib.Path) -> None:
    def by_itself(task: int, scratch: str) -> dict[str, Any]:
        if task == 2:
            raise UserError("it is NaN")
        return {"of": task}

    store, joint = Store(str(tmp_path)), _Joint([])
    todo = [Unit(f"u{k}", k, "kind") for k in range(5)]
    store.finish(todo[1], {"of": "before"})
    assert units.work_off(store, todo, by_itself, jointly=Jointly(joint, 8))
    assert joint.log == [[0, 2, 3, 4], [0, 2], [3, 4]]
    assert [store.failed(unit) for unit in todo] == [False, False, True, False, False]
    assert store.result(todo[4]) == {"of": 4} and store.result(todo[1]) == {"of": "before"}


def test_a_group_of_somebody_else_is_left_alone(tmp_path: pathlib.Path) -> None:
    store, joint = Store(str(tmp_path)), _Joint([], stops=True)
    todo = [Unit(f"u{k}", k, "kind") for k in range(2)]
    with store.claim(todo[0]):
        assert units.process_jointly(store, todo, joint, Jointly(joint, 2)) == "busy"
    assert not joint.log
    assert units.process_jointly(store, todo, joint, Jointly(joint, 2)) == "stopped"
    assert joint.log == [[0, 1]] and not any(store.settled(unit) for unit in todo)


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ({"program": "padded"}, "sweep.program='padded'"),
        ({"together": -1}, "sweep.together=-1"),
        ({"together": 2, "program": "own"}, "use 'shared'"),
        ({"together": 2, "engine": "ray"}, "use 'local'"),
    ],
)
def test_mistakes(sweep: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        validation.validate(config(**sweep))


def test_short_trainings_share_programs_unless_told() -> None:
    c = all_units()[0].task["config"]
    few, many = (
        {**c, "train": {**c["train"], "epochs": 4, "max_steps": steps}} for steps in (500, 501)
    )
    assert together.is_shared("auto", few) and not together.is_shared("auto", many)
    assert together.is_shared("shared", many) and not together.is_shared("own", few)
    unknown = {**few, "dataset": {**few["dataset"], "name": "folder"}}
    assert together.is_shared("auto", unknown), "It ends after 500 steps, however many images."
    unknown["train"] = {**few["train"], "max_steps": -1}
    assert not together.is_shared("auto", unknown)
    for space in ("nasbench101", "nasbench201"):
        photos = sweep_recipes.photos(space)
        for unit in sample.all_units(photos, [Architecture("any", SPACES[space].ANY)]):
            assert together.is_shared("auto", unit.task["config"]), unit.name


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ({"program": "shared"}, "sweep.program='shared': cells of .*'darts'"),
        ({"together": 4}, "sweep.together=4: cells of .*'darts'"),
    ],
)
def test_a_space_without_a_shared_program_refuses_to_share(
    sweep: dict[str, Any], words: str
) -> None:
    asked = config()
    asked.training.network.space = "darts"
    asked.sweep.update(sweep)
    with pytest.raises(UserError, match=words):
        validation.validate(asked)
