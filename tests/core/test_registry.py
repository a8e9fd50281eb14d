import functools
import types
from typing import Any

import pytest

from unnas_jax.core.errors import UserError
from unnas_jax.core.registry import Registry


def registry() -> Registry[int]:
    return Registry("task", {"rotation": 1, "jigsaw": 2})


def test_what_is_registered_is_found() -> None:
    tasks = registry()
    tasks.register("masked", 3)
    assert tasks.find("masked", "task.name") == tasks["masked"] == 3
    assert list(tasks) == ["rotation", "jigsaw", "masked"]


def test_a_taken_name_is_refused_and_kept() -> None:
    tasks = registry()
    with pytest.raises(UserError, match="task 'rotation': the name is taken"):
        tasks.register("rotation", 3)
    assert tasks["rotation"] == 1


def cell(module: str = "__main__", qualname: str = "Mine") -> Any:
    """What a notebook's cell defines; anew every time that it is run."""
    return type("Mine", (), {"__module__": module, "__qualname__": qualname})


def function(module: str) -> Any:
    def make() -> None:
        """Of another module than this."""

    make.__module__, make.__qualname__ = module, "make"
    return make


@pytest.mark.parametrize(
    "make",
    [
        cell,
        lambda module: cell(module)(),
        function,
        lambda module: functools.partial(function(module), 3),
        types.ModuleType,
    ],
    ids=["class", "instance", "function", "partial", "module"],
)
def test_a_cell_that_is_run_again_replaces_what_it_registered(make: Any) -> None:
    tasks: Registry[Any] = Registry("task", {"rotation": cell("unnas_jax.tasks")})
    forgotten: list[str] = []
    tasks.when_replaced(lambda: forgotten.append("all"))
    first, second = make("__main__"), make("__main__")
    assert tasks.register("mine", first) is tasks["mine"] is first and not forgotten
    assert tasks.register("mine", second) is tasks["mine"] is second
    assert forgotten == ["all"] and list(tasks) == ["rotation", "mine"]
    with pytest.raises(UserError, match="'mine': the name is taken by __main__"):
        tasks.register("mine", make("another"))
    with pytest.raises(UserError, match="'rotation': the name is taken; choose another"):
        tasks.register("rotation", make("unnas_jax.tasks"))
    assert tasks["mine"] is second


def test_what_is_the_user_s_in_an_item_counts() -> None:
    datasets: Registry[dict[str, Any]] = Registry("dataset", {}, made_by=lambda item: item["opens"])
    datasets.register("mine", {"opens": "own:opened"})
    datasets.register("mine", {"opens": "own:opened", "classes": 3})
    assert datasets["mine"]["classes"] == 3
    with pytest.raises(UserError, match="taken by own.opened"):
        datasets.register("mine", {"opens": function("another")})


@pytest.mark.parametrize("name", ["", " rotation", "tfds:rotation"])
def test_names_that_no_config_could_hold_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="give a name"):
        registry().register(name, 3)


def test_an_unknown_name_says_the_nearest_one() -> None:
    with pytest.raises(UserError) as error:
        registry().find("rotations", "task.name")
    assert str(error.value) == (
        "config.task.name='rotations': did you mean 'rotation'? use one of jigsaw, rotation"
    )
