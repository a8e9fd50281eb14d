"""When to stop a search before it collapses, and whose epoch's cells to take.

A rule gets what was measured after each epoch so far, counted from 0, and names the epoch whose
cells are the result, or none, to go on.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unnas_jax.core.errors import UserError

Row = Mapping[str, Any]
"""`epoch`, `skips` of the normal cell, `ranking` of its operations, `eigenvalue` or None.

Rules ask for nothing else; a search also keeps the `step` after which it was measured.
"""

Rule = Callable[[Sequence[Row], int], int | None]

# From RobustDARTS.
_WINDOW, _APART, _FACTOR, _FIRST = 5, 4, 1.3, 10
_LEAST = 3  # The fewest eigenvalues of which a mean is taken.

# From DARTS+.
_SKIPS, _UNCHANGED = 2, 10


def eigenvalue(rows: Sequence[Row], epochs: int) -> int | None:
    """RobustDARTS (Zela et al., 2020): stop when the eigenvalue grows too quickly.

    Eigenvalues are measured every f epochs. The mean of the last 5 belongs to the epoch of the
    third of them. When it is more than 1.3 times the mean of 4 measurements ago, the epoch of that
    earlier mean is the result, unless it is before epoch 10.

    Args:
      rows: of the epochs so far.
      epochs: of the whole search; after the last one it is too late to stop.
    """
    measured = [row for row in rows if row["eigenvalue"] is not None]
    if len(measured) < _LEAST + _APART or measured[-1] is not rows[-1]:
        return None
    values = [row["eigenvalue"] for row in measured]

    def mean(end: int) -> float:
        return float(np.mean(values[max(end - _WINDOW, 0) : end]))

    before = len(values) - _APART
    named = measured[before - 1 - _WINDOW // 2]["epoch"]
    late = rows[-1]["epoch"] >= epochs - 1
    if late or named < _FIRST or mean(len(values)) <= _FACTOR * mean(before):
        return None
    return int(named)


def may_be_named(rows: Sequence[Row]) -> list[Row]:
    """The rows that `eigenvalue` names now, or may name after later epochs."""
    measured = [row for row in rows if row["eigenvalue"] is not None]
    late = measured[-(_APART + _WINDOW // 2 + 1) :]
    return [row for row in late if row["epoch"] >= _FIRST]


def two_skips(rows: Sequence[Row], epochs: int) -> int | None:
    """DARTS+ (Liang et al., 2019): stop when the normal cell has two skip connections."""
    del epochs
    return int(rows[-1]["epoch"]) if rows and rows[-1]["skips"] >= _SKIPS else None


def stable_ranking(rows: Sequence[Row], epochs: int) -> int | None:
    """DARTS+: stop when the ranking of the operations that learn has not changed for 10 epochs."""
    del epochs
    last = [row["ranking"] for row in rows[-_UNCHANGED - 1 :]]
    stable = len(last) > _UNCHANGED and len(set(last)) == 1
    return int(rows[-1]["epoch"]) if stable else None


RULES: Mapping[str, Rule] = {
    "eigenvalue": eigenvalue,
    "two_skips": two_skips,
    "stable_ranking": stable_ranking,
}
"""By the value of config.method.stop."""


def validate(options: Mapping[str, Any], stages: int) -> None:
    """Raises `UserError` for a rule that there is not, or that cannot be asked.

    Args:
      options: of a method, complete.
      stages: how many it has.
    """
    every, rule = options["curvature_every"], options["stop"]
    if every < 0:
        raise UserError(f"config.method.curvature_every={every!r}: must be at least 0")
    if rule == "none":
        return
    if rule not in RULES:
        raise UserError(f"config.method.stop={rule!r}: use one of none, {', '.join(sorted(RULES))}")
    if rule == "eigenvalue" and not every:
        raise UserError(
            "config.method.stop='eigenvalue': needs eigenvalues; set "
            "config.method.curvature_every, such as 2"
        )
    if stages > 1:
        raise UserError(
            f"config.method.stop={rule!r}: the method has {stages} stages, each with its own end; "
            "use 'none'"
        )


def ranking(weights: np.ndarray, operations: Sequence[Sequence[str]]) -> str:
    """The order of the convolutions of every edge by their weights (E, O), as a text."""
    lines = []
    for row, names in zip(weights, operations, strict=True):
        learn = [k for k, name in enumerate(names) if "conv" in name]
        lines.append(" ".join(str(k) for k in sorted(learn, key=lambda k: (-row[k], k))))
    return "|".join(lines)
