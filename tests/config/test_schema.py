"""Configs: what is refused before anything is built, and differences between two."""

import dataclasses
import pathlib
import re

import pytest
from absl import flags

from unnas_jax.commands import command_line
from unnas_jax.config import options
from unnas_jax.config import schema as config_lib
from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.data import crops
from unnas_jax.layers.blocks import STEMS
from unnas_jax.runs import workdir
from unnas_jax.spaces.darts import supernet
from unnas_jax.sweep import validation
from unnas_jax.tasks.combinations import COMBINATIONS


@pytest.mark.parametrize("experiment", ["search", "train"])
def test_defaults_are_valid(experiment):
    validation.validate(config_lib.SCHEMAS[experiment]())


@pytest.mark.parametrize(
    "key, value",
    [
        ("experiment", "serch"),
        ("task.name", "rotate"),
        ("network.cells", 2),
        ("network.width", 7),
        ("network.stem", "tiny"),
        ("search.order", 3),
        ("search.arch_start_epoch", 2.0),
        ("search.formulation", "fast"),
        ("weights.learning_rate", 0.0),
        ("weights.learning_rate", float("nan")),
        ("weights.momentum", 1.0),
        ("alphas.b2", 1.0),
        ("input.crop", 300),
        ("input.train_crop", "random"),
        ("input.gray", 1.5),
        ("input.resampling", "nearest"),
        ("train.batch_size", 0),
        ("train.max_steps", 0),
        ("precision", "float16"),
        ("workers", -2),
        ("dataset.path", "images"),
        ("seed", -1),
    ],
)
def test_impossible_values_are_refused_by_name(key, value):
    config = config_lib.search()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError) as error:
        validation.validate(config)
    assert f"config.{key}={value!r}" in str(error.value)


@pytest.mark.parametrize("grid, count", [(2, 25), (3, 3025), (3, 1)])
def test_permutations_that_do_not_exist(grid, count):
    config = config_lib.search()
    config.task.update(name="jigsaw", grid=grid, permutations=count)
    with pytest.raises(UserError, match=f"permutations={count}"):
        validation.validate(config)


def test_unknown_and_missing_keys_are_named():
    config = config_lib.search()
    with config.unlocked():
        config.network.depth = 8
    with pytest.raises(UserError, match="config.network.depth: no such key.*cells"):
        validation.validate(config)
    config = config_lib.search()
    with config.unlocked():
        del config.network.cells
    with pytest.raises(UserError, match="config.network.cells: missing"):
        validation.validate(config)


@pytest.mark.parametrize(
    "key, value",
    [
        ("network.width", "47"),
        ("network.width", "wide"),
        ("network.drop_path", 1.0),
        ("seeds", 0),
        ("mode", "test"),
        ("eval.crop", "corner"),
    ],
)
def test_trainings_too(key, value):
    config = config_lib.training()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError) as error:
        validation.validate(config)
    assert f"config.{key}={value!r}" in str(error.value)


@pytest.mark.parametrize("task", ["rotation", "jigsaw", "colorization"])
def test_whole_images_are_for_tasks_that_can_tell_or_ignore_their_padding(task):
    config = config_lib.training()
    config.eval.crop = "whole"
    config.task.name = "segmentation"
    validation.validate(config)
    config.task.name = task
    with pytest.raises(UserError, match="config.eval.crop='whole': .* use 'centre'"):
        validation.validate(config)


@pytest.mark.parametrize("experiment", config_lib.SCHEMAS)
def test_every_field_says_what_it_means_and_records_have_them_all(experiment):
    config, record = config_lib.SCHEMAS[experiment]().to_dict(), config_lib.RECORDS[experiment]
    meanings = options.meanings(record)

    def fields(section, prefix=""):
        for key, value in section.items():
            if isinstance(value, dict) and value:
                yield from fields(value, f"{prefix}{key}.")
            else:
                yield prefix + key

    silent = [key for key in fields(config) if not meanings.get(key, "").strip().endswith(".")]
    assert not silent
    lines = config_lib.difference(config, dataclasses.asdict(record.of(config)))
    assert all(": (absent) -> " in line for line in lines)


@pytest.mark.parametrize("experiment", config_lib.SCHEMAS)
def test_defaults_are_of_the_fields_types(experiment):
    def check(record):
        for field in dataclasses.fields(record):
            if dataclasses.is_dataclass(field.type):
                check(field.type)
            elif field.type in (str, int, float, bool):
                assert {type(value) for value in field.metadata["defaults"].values()} == {
                    field.type
                }

    check(config_lib.RECORDS[experiment])


@pytest.mark.parametrize(
    "experiment, key, names",
    [
        ("search", "input.train_crop", crops.TRAIN_CROPS),
        ("search", "input.resampling", crops.RESAMPLINGS),
        ("train", "eval.crop", crops.EVAL_CROPS),
        ("search", "network.stem", STEMS),
        ("search", "task.targets", COMBINATIONS),
        ("search", "search.formulation", supernet.FORMULATIONS),
        ("search", "search.rematerialise", config_lib.REMATERIALISE),
    ],
)
def test_meanings_name_the_values_that_are_possible(experiment, key, names):
    words = set(re.findall(r"\w+", options.meanings(config_lib.RECORDS[experiment])[key]))
    assert set(names) <= words


def test_difference_names_what_differs():
    old = config_lib.search().to_dict()
    new = config_lib.search().to_dict()
    assert config_lib.difference(old, new) == []
    new["network"]["width"] = 32
    new["extra"] = 1
    assert config_lib.difference(old, new) == ["extra: (absent) -> 1", "network.width: 16 -> 32"]


@pytest.mark.parametrize(
    "path, expected",
    [
        ("configs/rot_photos.py", "runs/rot_photos"),
        ("configs/eval_in1k.py:darts_v2", "runs/eval_in1k_darts_v2"),
        ("/x/eval_in1k.py:runs/rot_in1k/genotype.json", "runs/eval_in1k_rot_in1k"),
    ],
)
def test_default_workdir(path, expected):
    assert config_lib.workdir(path) == expected


def test_a_workdir_of_before_a_field_came_still_belongs_to_the_run(tmp_path):
    config = config_lib.search().to_dict()
    old = {**config, "search": {k: v for k, v in config["search"].items() if k != "rematerialise"}}
    files.write_json(tmp_path / "config.json", old)
    (tmp_path / "metrics.jsonl").write_text("")
    workdir.claim(workdir.local(str(tmp_path)), config)
    files.write_json(tmp_path / "config.json", old)
    config["search"] = {**config["search"], "rematerialise": "cell"}
    with pytest.raises(UserError, match="search.rematerialise: none -> cell"):
        workdir.claim(workdir.local(str(tmp_path)), config)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # Of ml_collections.
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no such file"),
        ("[metadata]\nname = a package\n", "cannot be loaded: invalid syntax"),
        ("def get_config():\n    return nothing\n", "cannot be loaded: name 'nothing'"),
        ("import nothing_of_this_name\n", "cannot be loaded: No module named"),
    ],
)
def test_a_config_that_cannot_be_loaded_is_refused_with_the_flags(
    content: str | None, reason: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    argv, known = ["", f"--config={path}"], flags.FlagValues()
    command_line.define_config(known, argv)
    with pytest.raises(UserError, match=re.escape(f"--config={path}: {reason}")) as error:
        known(argv)
    assert "\n" not in str(error.value)
