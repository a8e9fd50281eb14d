"""Reads the rows of a metrics.jsonl; a crash or an editor may have spoilt some."""

import os
from typing import Any

from unnas_jax.core import reading
from unnas_jax.core.errors import UserError

Row = dict[str, Any]

_NUMBERS = {"kind": str, "step": int, "epoch": float, "values?": [float], str: float}

_SHAPES: dict[str, Any] = {
    "start": {
        "kind": str,
        "step": int,
        "num_classes": int,
        "train_images?": int,
        "validation_images?": int,
        "devices?": int,
        "backend?": str,
        "total_steps?": int,
    },
    "train": _NUMBERS,
    "method": _NUMBERS,
    "validation": {**_NUMBERS, "loss": float, "accuracy": float},
}


def is_sound(row: Row) -> bool:
    """Whether a row of a known kind has the keys that it needs, with numbers where they belong."""
    try:
        reading.check(row, _SHAPES.get(row["kind"], object))
    except ValueError:
        return False
    return row["step"] >= 0 and row.get("num_classes", 0) >= 0


def _parse(line: bytes) -> Row | None:
    try:
        value = reading.parse_json(line.decode())
        reading.check_document(value, {"kind": str, "step": int})
    except ValueError:
        return None
    row: Row = value
    return row


def read(path: str | os.PathLike[str]) -> tuple[list[tuple[bytes, Row]], int]:
    """The lines of a metrics.jsonl with their rows, and how many others were skipped.

    Half a line at the end, which a running process may complete, is not counted.

    Raises:
      UserError: the file cannot be read.
    """
    good, skipped = [], 0
    try:
        with reading.opened(path, reading.LARGE) as file:
            for line in reading.lines(file):
                row = _parse(line)
                if row is not None:
                    good.append((line, row))
                elif line.strip():
                    skipped += line.endswith(b"\n")
    except FileNotFoundError:
        return [], 0
    except (OSError, ValueError) as error:
        raise UserError(
            f"{os.fspath(path)}: cannot be read ({reading.reason(error)}); move it away"
        ) from error
    return good, skipped
