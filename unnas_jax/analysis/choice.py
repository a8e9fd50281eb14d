"""What a search that judged candidates says of them: the best, and how the others are spread."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unnas_jax.core import reading
from unnas_jax.core.errors import UserError

FILE = "candidates.jsonl"

ROW = {"step": int, "cell": str, "merit": float, str: object}
"""The shape of a row of `FILE`."""

Row = Mapping[str, Any]

_SHARES = ("accuracy", "miou")


def check(row: Row) -> None:
    """Raises `ValueError` for what is no row, or has a number that is not finite."""
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"its {name} is {value}")
    reading.check(row, ROW)


def described(row: Row) -> str:
    """What was found of a cell, in words."""
    names = [name for name in ("accuracy", "miou", "loss", "angle") if name in row]
    words = [
        f"{name} {100 * row[name]:.2f}%" if name in _SHARES else f"{name} {row[name]:.4f}"
        for name in names
    ]
    return ", ".join(words) or f"merit {row['merit']:.4f}"


def summary(rows: Sequence[Row], criterion: str) -> dict[str, Any]:
    """What genotype.json keeps of the candidates: the best row, and quantiles of the merits.

    Args:
      rows: of all candidates.
      criterion: by which they were judged, in a word.
    """
    merits = np.array([row["merit"] for row in rows], np.float64)
    best = rows[int(np.argmax(merits))]
    return {
        "count": len(rows),
        "criterion": criterion,
        "best": {key: value for key, value in best.items() if key not in ("step", "cell")},
        "merits": {
            name: float(np.quantile(merits, share))
            for name, share in (("least", 0.0), ("median", 0.5), ("tenth", 0.9), ("most", 1.0))
        },
    }


_SUMMARY = {
    "count": int,
    "criterion": str,
    "best": {str: float},
    "merits": {"least": float, "median": float, "tenth": float, "most": float},
}


def check_document(path: str, document: Mapping[str, Any]) -> None:
    """Raises `UserError` if the `candidates` of a genotype.json are not as `summary` made them."""
    if "candidates" not in document:
        return
    try:
        reading.check(document["candidates"], _SUMMARY, "candidates")
        reading.check(document, {"cell": str, str: object})
        check({**document["candidates"]["best"], "step": 0, "cell": ""})
    except ValueError as error:
        raise UserError(
            f"genotype: {path} is damaged: {error}; remove it, and the search writes it again"
        ) from error


def facts(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Boxes of the report: title, content, note; none of a document without candidates."""
    found = document.get("candidates")
    if found is None:
        return []
    merits = found["merits"]
    note = (
        f"best of {found['count']:,} random cells by {found['criterion']}; merits from "
        f"{merits['least']:.4g}, median {merits['median']:.4g}, best tenth from "
        f"{merits['tenth']:.4g}, to {merits['most']:.4g}"
    )
    return [("cell chosen", described(found["best"]), note)]
