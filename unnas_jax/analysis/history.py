"""The history of a search's architecture parameters: the content of `alphas.npz`.

Columns of the file, T rows, the first at step 0:

    step, epoch, stage           (T,)
    mixing/KIND                  (T, edges, operations): by kind of cell (in DARTS normal, reduce)
                                 the weights of the operations, 0 where an edge has fewer
    NAME                         (rows of stage 0, ...): architecture parameters, raw
    stageK/NAME                  (rows of stage K, ...): the same of a later stage

Those of DARTS are `normal` and `reduce`. A file without the columns `stage` and `mixing/` is of
DARTS, by a version before there were other methods.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts import genotype as genotypes
from unnas_jax.spaces.darts.candidates import KINDS

_MIXING = "mixing/"


@dataclasses.dataclass(frozen=True)
class Row:
    """The architecture parameters after a step.

    Attributes:
      step, epoch: when.
      stage: of the method.
      alphas: raw, by name.
      mixing: see `SearchMethod.mix`.
    """

    step: int
    epoch: float
    stage: int
    alphas: Mapping[str, np.ndarray]
    mixing: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Alphas:
    """The rows of a search, in order of their steps."""

    rows: tuple[Row, ...]

    @property
    def epoch(self) -> np.ndarray:
        """(T,), how many epochs were done."""
        return np.array([row.epoch for row in self.rows], np.float64)

    @property
    def mixing(self) -> dict[str, np.ndarray]:
        """(T, edges, operations) for all kinds of cell."""
        kinds = self.rows[0].mixing
        return {kind: np.stack([row.mixing[kind] for row in self.rows]) for kind in kinds}

    def until(self, step: int) -> Self:
        """The rows up to a step."""
        return dataclasses.replace(self, rows=tuple(row for row in self.rows if row.step <= step))

    def at(self, epoch: float) -> Row:
        """The row after so many epochs.

        Raises:
          UserError: it is not there.
        """
        for row in self.rows:
            if row.epoch == epoch:
                return row
        raise UserError(
            f"alphas.npz: has no alphas of epoch {epoch:g}, whose cells end the search; it was "
            "lost or damaged, so start anew in an empty workdir"
        )

    def with_row(self, row: Row) -> Self:
        """One row more; the same if it is not later than the last one."""
        if self.rows and self.rows[-1].step >= row.step:
            return self
        return dataclasses.replace(self, rows=(*self.rows, row))

    def columns(self) -> dict[str, Any]:
        """The content of the file."""
        columns: dict[str, Any] = {
            "step": np.array([row.step for row in self.rows]),
            "epoch": self.epoch,
            "stage": np.array([row.stage for row in self.rows]),
            **{_MIXING + kind: weights for kind, weights in self.mixing.items()},
        }
        for stage in sorted({row.stage for row in self.rows}):
            rows = [row.alphas for row in self.rows if row.stage == stage]
            for name in rows[0]:
                columns[_prefix(stage) + name] = np.stack([np.asarray(row[name]) for row in rows])
        return columns

    @classmethod
    def of_columns(cls, columns: Mapping[str, np.ndarray]) -> Self:
        """The inverse of `columns`.

        Raises:
          KeyError, ValueError: they are not the history of a search.
        """
        count = columns["step"].size
        stages = columns.get("stage", np.zeros(count, np.int64))
        if count == 0 or any(v.shape != (count,) for v in (columns["epoch"], stages)):
            raise ValueError("its steps, epochs and stages are no history")
        if columns["step"].shape != (count,) or min(columns["step"].min(), stages.min()) < 0:
            raise ValueError("its steps and stages are no history")
        named = "stage" in columns
        if named:
            kinds = sorted(name.removeprefix(_MIXING) for name in columns if _MIXING in name)
            mixing = {kind: columns[_MIXING + kind] for kind in kinds}
        else:
            mixing = {kind: _softmax(columns[kind]) for kind in KINDS}
        shapes = [weights.shape for weights in mixing.values()]
        edges = [candidates.num_edges(nodes) for nodes in range(1, candidates.MAX_NODES + 1)]
        good = all(len(shape) == 3 and shape[0] == count and shape[2] > 0 for shape in shapes)
        one = len({shape[1:2] for shape in shapes}) == 1
        if not good or not one or (set(mixing) == set(KINDS) and shapes[0][1] not in edges):
            raise ValueError(
                f"weights of the shapes {' and '.join(map(str, shapes))} for {count} steps; "
                "expected (steps, edges, operations)"
            )
        by_stage = {stage: _of_stage(columns, stage) for stage in set(stages.tolist())}
        for stage, arrays in by_stage.items():
            for name, value in arrays.items():
                if value.ndim == 0 or len(value) != np.sum(stages == stage):
                    raise ValueError(f"{name} has not a row for each step of stage {stage}")
        rows, seen = [], dict.fromkeys(by_stage, 0)
        for k, stage in enumerate(stages.tolist()):
            place, seen[stage] = seen[stage], seen[stage] + 1
            rows.append(
                Row(
                    step=int(columns["step"][k]),
                    epoch=float(columns["epoch"][k]),
                    stage=stage,
                    alphas={name: value[place] for name, value in by_stage[stage].items()},
                    mixing={kind: weights[k] for kind, weights in mixing.items()},
                )
            )
        return cls(tuple(rows))


def _softmax(alphas: np.ndarray) -> np.ndarray:
    """The weights of a file of an older version."""
    if alphas.ndim != 3 or alphas.size == 0:
        raise ValueError(f"alphas of the shape {alphas.shape}")
    return genotypes.softmax(alphas)


def _prefix(stage: int) -> str:
    return f"stage{stage}/" if stage else ""


def _of_stage(columns: Mapping[str, Any], stage: int) -> dict[str, Any]:
    """The architecture parameters of a stage, by name."""
    if not stage:
        own = {"step", "epoch", "stage"}
        return {name: v for name, v in columns.items() if name not in own and "/" not in name}
    prefix = _prefix(stage)
    return {name[len(prefix) :]: v for name, v in columns.items() if name.startswith(prefix)}
