"""Checks the config of any experiment, also of samples, before a run."""

import re
from collections.abc import Mapping

import ml_collections

from unnas_jax.config import schema
from unnas_jax.core.errors import UserError
from unnas_jax.runs import together, validation
from unnas_jax.spaces import registry as spaces
from unnas_jax.spaces import sharing
from unnas_jax.sweep.scores import registry
from unnas_jax.tasks import registry as tasks


def validate(config: ml_collections.ConfigDict) -> None:
    """Refuses unknown keys, wrong types and impossible values before anything is built.

    Args:
      config: of any experiment.

    Raises:
      UserError: names the key, its value and what to use instead.
    """
    if config.to_dict().get("experiment") == "sample":
        _validate_sample(config)
    else:
        validation.check_choice("experiment", config.to_dict().get("experiment"), schema.SCHEMAS)
        validation.validate(config)


def _validate_sample(config: ml_collections.ConfigDict) -> None:
    given = config.to_dict()
    recipes = given.get("recipes", {})
    validation.check(
        isinstance(recipes, Mapping), "recipes", recipes, "give a section for each task"
    )
    validation.check_keys(given, schema.sample().to_dict())
    c = schema.SampleConfig.of(given)
    choices = (*tasks.TASKS, *registry.SCORES)
    for task in recipes:
        validation.check_choice(f"recipes.{task}", task, choices)
    validation.check(len(c.tasks) > 0, "tasks", c.tasks, "give at least one")
    for task in c.tasks:
        validation.check_choice("tasks", task, choices)
    repeated = len(set(c.tasks)) < len(c.tasks)
    validation.check(not repeated, "tasks", c.tasks, "name each task once")
    validation.check_numbers(c, "sample.count sample.nodes", 1, strict=False)
    keys = "sweep.workers_per_device sweep.cores_per_worker sweep.attempts"
    validation.check_numbers(c, keys, 1, strict=False)
    validation.check_numbers(c, "seed", 0, strict=False)
    window = c.sample.parameters
    numbers = len(window) == 2 and all(isinstance(size, int) for size in window)
    remedy = "give the least and the most number of parameters"
    validation.check(numbers and window[0] <= window[1], "sample.parameters", window, remedy)
    validation.check_choice("sweep.engine", c.sweep.engine, ("local", "ray"))
    validation.check_choice("sweep.program", c.sweep.program, together.PROGRAMS)
    validation.check_numbers(c, "sweep.together", 0, strict=False)
    for key, refused, works in (("engine", "ray", "local"), ("program", "own", "shared")):
        value = getattr(c.sweep, key)
        if c.sweep.together > 1 and value == refused:
            raise UserError(
                f"config.sweep.together={c.sweep.together}: units of config.sweep.{key}={value!r} "
                f"are trained one by one; use {works!r}, or 1 at once"
            )
    index, slash, count = c.sweep.shard.partition("/")
    part = slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)
    remedy = "give i/n, the part i, counted from 0, of n parts"
    validation.check(bool(part), "sweep.shard", c.sweep.shard, remedy)
    mode = c.training.mode
    validation.check(mode == "train", "training.mode", mode, "use 'train'")
    space = c.training.network.space
    validation.check_choice("training.network.space", space, spaces.SPACES)
    if not sharing.is_possible(space):
        # Asked for in vain: no cell of the space would train so.
        together_asked = c.sweep.together > 1 and f"config.sweep.together={c.sweep.together}"
        shared_asked = c.sweep.program == "shared" and "config.sweep.program='shared'"
        if asked := shared_asked or together_asked:
            raise UserError(
                f"{asked}: cells of config.training.network.space={space!r} have no program in "
                "common; use 'auto', and 0 or 1 together"
            )
    validation.check_numbers(c, "scores.images", 2, strict=False)
    for name in c.tasks:
        needs = name in registry.SCORES and registry.SCORES[name].needs_supernet
        if needs and not c.scores.supernet:
            raise UserError(f"config.scores.supernet='': the score {name} {registry.NO_SUPERNET}")
    for task in c.tasks:
        try:
            validation.validate(
                schema.of_unit(config, task, spaces.SPACES[space].ANY, task in registry.SCORES)
            )
        except UserError as error:
            words = str(error)
            if not words.startswith("config.recipes."):
                words = re.sub(r"\bconfig\.", "config.training.", words)
                words += f" (with config.recipes.{task})" if task in recipes else ""
            raise UserError(words) from error
