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
