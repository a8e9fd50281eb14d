"""The config.json of a workdir: damaged, of another experiment, of another length."""

import json
import pathlib

import pytest

from unnas_jax.config import run_config
from unnas_jax.config import schema as config_lib
from unnas_jax.core.errors import UserError
from unnas_jax.runs import workdir


def started(folder: pathlib.Path, config) -> None:
    """A workdir in which a run has begun."""
    workdir.claim(workdir.local(str(folder)), config.to_dict())
    (folder / "metrics.jsonl").write_text("")


def refusal(folder: pathlib.Path, config) -> str:
    with pytest.raises(UserError) as error:
        workdir.claim(workdir.local(str(folder)), config.to_dict())
    return str(error.value)


def test_an_evaluation_in_the_workdir_of_a_search_says_so(tmp_path: pathlib.Path) -> None:
    started(tmp_path, config_lib.search())
    evaluation = config_lib.training()
    evaluation.mode = "eval"
    words = refusal(tmp_path, evaluation)
    assert "is that of a search, and this config evaluates a training" in words
    assert "->" not in words  # No list of fields that the other experiment has not.


def test_more_epochs_say_why_they_need_another_workdir(tmp_path: pathlib.Path) -> None:
    config = config_lib.search()
    started(tmp_path, config)
    config.train.epochs = 9
    words = refusal(tmp_path, config)
    assert "train.epochs: 2 -> 9" in words and "cosine" in words and "another --workdir" in words
    config.seed = 5  # Not only the length: the usual words.
    assert "cosine" not in refusal(tmp_path, config)


def test_more_steps_continue_a_run(tmp_path: pathlib.Path) -> None:
    config = config_lib.search()
    config.train.max_steps = 10
    started(tmp_path, config)
    config.train.max_steps = 20
    workdir.claim(workdir.local(str(tmp_path)), config.to_dict())


def test_many_differences_are_counted_not_listed(tmp_path: pathlib.Path) -> None:
    config = config_lib.search()
    started(tmp_path, config)
    config.weights.update(learning_rate=1.0, momentum=0.5, weight_decay=1.0, clip_norm=1.0)
    config.alphas.update(learning_rate=1.0, b1=0.1, b2=0.2, weight_decay=1.0)
    assert "and 2 more" in refusal(tmp_path, config)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": {"epochs": "many"}}, "train.epochs is 'many', not a whole number"),
        ({"train": []}, "train is a list of 0, not an object"),
        ({"seed": True}, "seed is True, not a whole number"),
        ({"experiment": "x"}, "is of another program"),
        ({"weights": {"learning_rate": 1e300}}, "a number beyond all bounds"),
    ],
)
def test_a_damaged_config_is_named_with_the_remedy(tmp_path, change, words) -> None:
    config = config_lib.search()
    started(tmp_path, config)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**config.to_dict(), **change}))
    assert words in refusal(tmp_path, config)


def test_a_config_comes_back_in_its_own_types(tmp_path: pathlib.Path) -> None:
    config = config_lib.sample()
    config.recipes = {"jigsaw": {"task": {"aspp_rates": (1, 2)}, "seeds": 2}}
    started(tmp_path, config)
    assert run_config.read(str(tmp_path)) == config.to_dict()
