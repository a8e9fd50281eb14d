"""The config.json of a workdir: reading it, and refusing a config that cannot continue the run."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from unnas_jax.config import schema as config_lib
from unnas_jax.core import reading
from unnas_jax.core.errors import UserError

FILE = "config.json"

KINDS = {"search": "a search", "train": "a training", "sample": "a sweep"}
"""The names of experiments in messages."""

_MOST = 6  # Differences that a message lists.


def _shape(default: Any) -> Any:
    """What a field may hold, as `reading.check` takes it; lists have entries of one type.

    An empty default is that of `network.operations`, whose entries are checked where they are used.
    """
    if isinstance(default, Mapping):
        return {f"{key}?": _shape(value) for key, value in default.items()}
    if isinstance(default, tuple):
        return [_shape(default[0])] if default else ([object], {str: [object]})
    return type(default)


def _typed(value: Any, default: Any) -> Any:
    """A value from JSON, without tuples, in the types of a config; `ValueError` for odd keys."""
    if isinstance(default, Mapping):
        if not all(key.isidentifier() for key in value):
            raise ValueError("a key is no name")
        return {key: _typed(item, default.get(key)) for key, item in value.items()}
    return _tuples(value) if isinstance(default, tuple) else value


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def read(workdir: str, name: str = "", of: str = "a run") -> dict[str, Any]:
    """The config of the run in a directory, with the defaults of fields that have come since.

    Args:
      workdir: the directory.
      name: what the user calls it; the same if it is empty.
      of: what kind of run the user is asked for if this is none.

    Raises:
      UserError: there is none, or it is damaged.
    """
    path = os.path.join(workdir, FILE)
    if not os.path.exists(path):
        called = name or workdir
        if os.path.isfile(workdir):
            folder = os.path.dirname(workdir) or os.curdir
            raise UserError(f"{called}: is a file; give the directory of the run, {folder}")
        lack = (
            "not a workdir, it has no config.json" if os.path.isdir(workdir) else "no such workdir"
        )
        raise UserError(f"{called}: {lack}; give the --workdir of {of}")
    remedy = "if the run had the config that you start it with, remove the file and start again"
    found = reading.document(path, {"experiment": str}, what=name, remedy=remedy)
    schema = config_lib.SCHEMAS.get(found["experiment"])
    if schema is None:
        kind = reading.shown(found["experiment"])
        raise UserError(f"{path} is of another program: its experiment is {kind}")
    defaults = schema().to_dict()
    shape = _shape(defaults)
    if found["experiment"] == "sample":
        shape["recipes?"] = {str: _shape(config_lib.training().to_dict())}
    found = reading.document(path, shape, what=name, remedy=remedy)
    kinds = dict(defaults)
    if found["experiment"] == "sample":
        kinds["recipes"] = dict.fromkeys(found.get("recipes", ()), config_lib.training().to_dict())
    try:
        return config_lib.completed(_typed(found, kinds), defaults)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; {remedy}") from error


def check_same(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raises `UserError` if a run is of another experiment than a config.

    Args:
      name: of the run's workdir.
      old: the run's config.
      new: the config that is to continue it.
    """
    of_run, wanted = old["experiment"], new["experiment"]
    if of_run != wanted:
        what = "evaluates a training" if new.get("mode") == "eval" else f"is of {KINDS[wanted]}"
        raise UserError(
            f"workdir {name} is that of {KINDS[of_run]}, and this config {what}; give the workdir "
            f"of {KINDS[wanted]}, or a new one"
        )


def refusal(name: str, differences: Sequence[str]) -> UserError:
    """Why a run cannot go on with another config.

    Args:
      name: of the run's workdir.
      differences: lines `key: old -> new`.
    """
    shown = "; ".join(differences[:_MOST])
    if len(differences) > _MOST:
        shown += f"; and {len(differences) - _MOST} more"
    changed = [line.partition(":")[0] for line in differences]
    if all(key.split(".")[-2:] == ["train", "epochs"] for key in changed):
        return UserError(
            f"workdir {name} belongs to a run of another length ({shown}): the learning rate falls "
            "along a cosine over all epochs, so that a longer run differs from its first step on; "
            "start it in another --workdir"
        )
    return UserError(
        f"workdir {name} belongs to another config ({shown}); give another --workdir or the same "
        "config"
    )
