"""NAS-Bench-201 as a `unnas_jax.spaces.mixed.Mixed`: one kind of cell, alphas (6, 5)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unnas_jax.config.options import Config
from unnas_jax.config.sections import SupernetConfig
from unnas_jax.core import precision
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts.candidates import Candidates
from unnas_jax.spaces.nasbench201 import space
from unnas_jax.spaces.nasbench201.mixed_supernet import FORMULATIONS, KIND, Supernet
from unnas_jax.spaces.nasbench201.network import STAGES
from unnas_jax.spaces.nasbench201.spec import EDGES, OPERATIONS, Spec
from unnas_jax.tasks.base import Examples, Task

LABELS: Mapping[str, str] = {KIND: "cell"}
INPUTS: int | None = None

_NODES = 4  # The default of config.network.nodes, which says nothing here.


def operations(section: Config) -> Candidates:
    """All five on every edge."""
    del section
    return {KIND: (OPERATIONS,) * len(EDGES)}


def edges(operations: Candidates) -> Sequence[tuple[int, int]]:
    """All six."""
    del operations
    return EDGES


def validate(config: Config) -> None:
    """Raises `UserError` for settings of the DARTS space, and sizes that do not fit."""
    c = SupernetConfig.of(config)
    network, form = c.network, c.search.formulation
    space.check_stack(network)
    for key, plain in (("nodes", _NODES), ("affine", False), ("operations", ())):
        value = getattr(network, key)
        if value != plain and list(value if key == "operations" else [value]):
            raise UserError(
                f"config.network.{key}={value!r}: supernets of NAS-Bench-201 have no such choice; "
                f"use {plain!r}"
            )
    if form not in ("auto", *FORMULATIONS):
        raise UserError(
            f"config.search.formulation={form!r}: knows the operations of DARTS only; use 'auto' "
            f"or one of {', '.join(FORMULATIONS)}"
        )
    parts, width = network.partial_channels, network.width
    if parts < 1 or width % parts:
        raise UserError(
            f"config.network.partial_channels={parts}: must divide network.width={width}"
        )


def build(config: Config, task: Task) -> Supernet:
    """The supernet of a valid config with the head of a task."""
    c = SupernetConfig.of(config)
    network, dtype = c.network, precision.compute_dtype(c.precision)
    form = c.search.formulation
    return Supernet(
        head=task.head(dtype),
        width=network.width,
        cells_each=network.cells // STAGES,
        formulation="dense" if form == "auto" else form,
        rematerialise=c.search.rematerialise == "cell",
        parts=network.partial_channels,
        auxiliary_skip=network.auxiliary_skip,
        dtype=dtype,
    )


def check_inputs(examples: Examples) -> None:
    """As trainings of the space do."""
    space.check_sides(examples)


def cells(mixing: Mapping[str, np.ndarray], operations: Candidates, threshold: float = 0.0) -> Spec:
    """On every edge the operation of the largest weight, which may be `none` (Dong and Yang).

    `none` also takes the place of an operation below the threshold; a cell that would have none
    left keeps the strongest.
    """
    del operations
    found = [(float(row.max()), OPERATIONS[row.argmax()]) for row in np.asarray(mixing[KIND])]
    strongest = max((weight for weight, name in found if name != "none"), default=0.0)
    least = min(threshold, strongest)
    return Spec(tuple(name if weight >= least else "none" for weight, name in found))


def chosen(cells: Any) -> dict[str, list[tuple[str, int, int]]]:
    """All six edges."""
    return {KIND: [(name, *edge) for name, edge in zip(cells.operations, EDGES, strict=True)]}


def document(
    cells: Any,
    weights: Mapping[str, np.ndarray],
    provenance: Mapping[str, Any],
    operations: Candidates,
) -> dict[str, Any]:
    """The cell, its text, and the weights of `spec.OPERATIONS` on every edge."""
    del operations
    shares = {KIND: np.asarray(weights[KIND]).round(6).tolist()}
    return {**cells.as_dict(), "cell": str(cells), "alphas_softmax": shares, **provenance}
