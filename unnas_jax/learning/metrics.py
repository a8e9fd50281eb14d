"""The metrics of a run: JSON lines, and trackers such as TensorBoard."""

import json
import logging
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.learning import rows
from unnas_jax.learning.trackers import Tracker
from unnas_jax.tasks.base import Sums

_LOG = logging.getLogger("unnas_jax")


def first_not_finite(sums: Sequence[Sums]) -> int | None:
    """The position of the first batch whose loss is NaN or infinite."""
    for position, batch in enumerate(sums):
        if not math.isfinite(float(batch["loss"])):
            return position
    return None


class MetricsLog:
    """Appends rows to WORKDIR/metrics.jsonl, and gives their numbers to trackers.

    Args:
      workdir: an existing directory.
      step: the step that the run continues from; rows of later steps, which a killed run left,
        are removed so that no step appears twice.
      trackers: started ones.
    """

    def __init__(self, workdir: str, step: int, trackers: Sequence[Tracker] = ()) -> None:
        path = os.path.join(workdir, "metrics.jsonl")
        if os.path.isfile(path):
            found, skipped = rows.read(path)
            if skipped:
                _LOG.warning("%s: %d damaged lines are left out.", path, skipped)
            with files.replacing(path, "wb") as file:
                # A half line at the end would be joined to the next one.
                whole = (line for line, row in found if row["step"] <= step)
                file.writelines(line for line in whole if line.endswith(b"\n"))
        elif pathlib.Path(path).is_fifo():
            raise UserError(f"{path}: is a pipe, for whose reader a run would wait; move it away")
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        self._trackers = trackers

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Writes one row; its numbers also go to the trackers, as `kind/name`."""
        row = {"kind": kind, "step": step, **values}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        numbers = {
            f"{kind}/{name}": value
            for name, value in values.items()
            if isinstance(value, float) and name not in ("epoch", "seconds_left")
        }
        for tracker in self._trackers:
            tracker.write(step, numbers)

    def close(self) -> None:
        """Writes what is buffered and closes everything."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()
