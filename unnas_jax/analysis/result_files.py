"""Reads the result.json of a training, and the units of a sweep."""

import os
from typing import Any

from unnas_jax.core import reading
from unnas_jax.core.errors import UserError

SCHEMA = "unnas_jax.result/1"

SCORE = "score"
"""The metric of units whose values are no accuracies, but numbers of any size."""

_RESULT = {
    "dataset": str,
    "task": str,
    "genotype": str,
    "genotype_source": (None, {"dataset": str, "task": str}),
    "width": int,
    "cells": int,
    "parameters": int,
    "multiply_adds": int,
    "metric": str,
    "values": [float],
    "mean": float,
    "std": float,
    "finished": bool,
    "seeds?": [int],
    "loss?": [float],
    "step?": int,
    "epoch?": float,
    "space?": str,
    "cells_used?": {str: object},
    "chance?": float,
    "warnings?": [str],
    "top5?": [float],
    "by_class?": {
        "names": [str],
        "metric": str,
        "values": [(None, float)],
        "confusion": [[int]],
    },
}

_UNIT_PACE = {
    "seconds": float,
    "seeds": [int],
    "compile": {"seconds": float},
    "task?": str,
    "warnings?": [str],
}
_UNIT = {
    "architecture": str,
    "space": str,
    "dataset": str,
    "task": str,
    "seeds": [int],
    "values": [float],
    "accuracy?": float,
    "chance?": (None, float),
    "metric?": str,
    "seconds?": float,
    "warnings?": [str],
    "curve?": [{"epoch": float, "values": [float]}],
}


def read_result(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The content of a `result.json`; None if it is of another experiment than a training.

    Raises:
      UserError: it cannot be read, or is damaged.
    """
    name, remedy = os.fspath(path), "run the evaluation again"
    value: dict[str, Any] = reading.document(path, object, remedy=remedy)
    if not isinstance(value, dict) or value.get("experiment", "train") != "train":
        return None
    if value.get("schema") != SCHEMA:
        schema = reading.shown(value.get("schema"))
        raise UserError(f"{name}: has the schema {schema}; this version reads {SCHEMA!r}")
    try:
        reading.check_document(value, _RESULT)
        if not value["values"]:
            raise ValueError("it has no values")
        sides = (
            [len(value["by_class"][key]) for key in ("names", "values", "confusion")]
            + [len(row) for row in value["by_class"]["confusion"]]
            if "by_class" in value
            else []
        )
        if len(set(sides)) > 1:
            raise ValueError("its classes are not as many everywhere")
    except ValueError as error:
        raise UserError(f"{name}: not a result of this version ({error}); {remedy}") from error
    return value


def read_unit(path: str | os.PathLike[str], *, pace: bool = False) -> dict[str, Any]:
    """The content of a file that a finished unit of a sweep leaves.

    Args:
      path: of the file.
      pace: whether to read only the unit's times, not its results.

    Raises:
      UserError: it cannot be read, or is damaged.
    """
    remedy = "remove it and start the sweep again"
    value: dict[str, Any] = reading.document(path, object, remedy=remedy)
    try:
        reading.check_document(value, _UNIT_PACE if pace else _UNIT)
        if not pace and len(value["seeds"]) != len(value["values"]):
            raise ValueError("it has not one value a seed")
    except ValueError as error:
        raise UserError(
            f"{os.fspath(path)}: not the result of a unit ({error}); {remedy}"
        ) from error
    return value
