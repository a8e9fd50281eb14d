"""The DARTS supernet: every operation on every edge, mixed by the alphas' softmax."""

from collections.abc import Callable, Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.config.options import Config
from unnas_jax.config.sections import SupernetConfig
from unnas_jax.core import precision, sharding
from unnas_jax.core.errors import UserError
from unnas_jax.layers.blocks import Stem, plan
from unnas_jax.spaces import mixing, stages
from unnas_jax.spaces.darts import candidates as candidates_lib
from unnas_jax.spaces.darts.candidates import KINDS, Candidates
from unnas_jax.spaces.darts.fused import FusedCell
from unnas_jax.spaces.darts.per_edge import PlainCell
from unnas_jax.tasks.base import Task

FORMULATIONS = ("auto", "dense", "depthwise", "per_edge")
"""How a supernet is computed: `per_edge` by its definition; `dense` (for matrix units) and
`depthwise` (for CPUs) as the fused forms, which know DARTS' eight operations only; `auto` chooses.
"""


def init_alphas(
    key: jax.Array, nodes: int, scale: float, operations: Candidates | None = None
) -> dict[str, jax.Array]:
    """`mixing.drawn` for both kinds of cell; operations None: those of DARTS on all edges."""
    operations = candidates_lib.everywhere(nodes) if operations is None else operations
    return mixing.drawn(key, scale, operations)


class Supernet(nn.Module):
    """Stem, cells, head.

    Attributes:
      head: a module from the cells' features to the task's outputs.
      single_reduction: reduce only at a third of the cells, as for segmentation; else also at two.
      formulation: one of `FORMULATIONS` but `auto`. The fused forms share their parameters.
      operations: of every edge; None: those of DARTS.
      rematerialise: keep only the cells' inputs for the backward pass and compute each cell again:
        less memory, a forward pass more.
      mix: alphas -> the operations' weights on the edges, `normal` and `reduce`, and the numbers of
        `per_edge.Skips`; None: `mixing.softmax`.
      parts: K of PC-DARTS, see `partial`: one channel of K is worked on; 1: all are.
      auxiliary_skip: whether every edge has one more skip connection, of weight `auxiliary`.
      one: compute one operation alone on every edge, that of the largest weight; `per_edge` only.
      affine: whether batch norms in cells have scale and bias; `per_edge` only.
    """

    width: int
    cells: int
    nodes: int
    stem: str
    head: nn.Module
    single_reduction: bool = False
    formulation: str = "depthwise"
    operations: Candidates | None = None
    rematerialise: bool = False
    mix: Callable[[mixing.Alphas], Mapping[str, jax.Array]] | None = None
    parts: int = 1
    auxiliary_skip: bool = False
    one: bool = False
    affine: bool = False
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        if self.operations is not None:  # A mapping that can be hashed, because modules are.
            self.operations = flax.core.freeze(dict(self.operations))
        super().__post_init__()

    @nn.compact
    def __call__(self, inputs: jax.Array, alphas: mixing.Alphas, train: bool) -> jax.Array:
        """The head's outputs for inputs (N, H, W, channels) and `mixing.Alphas`.

        Operations that draw, such as `noise`, take the random stream `noise`.
        """
        weights = mixing.softmax(alphas, self.operations) if self.mix is None else self.mix(alphas)
        skips = {name: value for name, value in weights.items() if name not in KINDS}
        states = Stem(self.stem, self.width, dtype=self.dtype, name="stem")(
            inputs.astype(self.dtype), train
        )
        ends = []
        for cell in cells_of(self):
            if cell.reduction:
                ends.append(stages.end(self, states[1]))
            own = weights["reduce" if cell.reduction else "normal"]
            output = cell(*states, own, train, skips)
            states = (states[1], output)
        ends.append(stages.end(self, states[1]))
        return self.head(stages.for_head(self.head, ends, states[1]), train)


def cells_of(supernet: Supernet) -> list[FusedCell | PlainCell]:
    """The cells of a supernet from the first to the last."""
    operations = supernet.operations or candidates_lib.everywhere(supernet.nodes)
    plain = supernet.formulation == "per_edge"
    _check_formulation(supernet.formulation, operations, "formulation", supernet.affine)
    cell: Any = PlainCell if plain else FusedCell
    if supernet.rematerialise:
        # The arguments of a cell after itself: two inputs, weights, train, skips.
        cell = nn.remat(cell, static_argnums=(4,))
    cells = []
    for place in plan(supernet.width, supernet.cells, supernet.stem, supernet.single_reduction):
        kind = "reduce" if place.reduction else "normal"
        own = (
            {"operations": operations[kind], "one": supernet.one, "affine": supernet.affine}
            if plain
            else {"dense": supernet.formulation == "dense"}
        )
        cells.append(
            cell(
                channels=place.channels,
                nodes=supernet.nodes,
                reduction=place.reduction,
                reduce_input0=place.reduce_input0,
                parts=supernet.parts,
                auxiliary_skip=supernet.auxiliary_skip,
                dtype=supernet.dtype,
                name=place.name,
                **own,
            )
        )
    return cells


def _check_formulation(
    formulation: str, operations: Candidates, key: str, affine: bool = False
) -> None:
    if formulation in ("dense", "depthwise") and affine:
        raise UserError(
            f"{key}={formulation!r}: knows no batch norms with scale and bias; use 'auto' or "
            "'per_edge', or network.affine=False"
        )
    if formulation in ("dense", "depthwise") and not candidates_lib.are_darts(operations):
        raise UserError(
            f"{key}={formulation!r}: knows only the eight operations of DARTS in their order, not "
            "those of network.operations; use 'auto' or 'per_edge'"
        )


def validate(config: Config) -> None:
    """Refuses unknown operations, and a formulation that does not know them.

    Raises:
      UserError: names the key and the remedy.
    """
    c = SupernetConfig.of(config)
    operations = candidates_lib.of_network(c.network)
    candidates_lib.check(operations)
    parts, width = c.network.partial_channels, c.network.width
    if parts < 1 or width % (2 * parts) and parts > 1:
        raise UserError(
            f"config.network.partial_channels={parts}: must be 1, or divide "
            f"network.width={width} into even numbers of channels, which reductions halve"
        )
    form, key = c.search.formulation, "config.search.formulation"
    _check_formulation(form, operations, key, c.network.affine)


def build_supernet(config: Config, task: Task) -> Supernet:
    """The supernet of a config with the head of a task."""
    c = SupernetConfig.of(config)
    network, formulation = c.network, c.search.formulation
    dtype = precision.compute_dtype(c.precision)
    operations = candidates_lib.of_network(network)
    if formulation == "auto":
        fused = "depthwise" if sharding.platform() == "cpu" else "dense"
        plain = network.affine or not candidates_lib.are_darts(operations)
        formulation = "per_edge" if plain else fused
    return Supernet(
        width=network.width,
        cells=network.cells,
        nodes=network.nodes,
        stem=network.stem,
        head=task.head(dtype),
        single_reduction=task.single_reduction,
        formulation=formulation,
        operations=operations,
        rematerialise=c.search.rematerialise == "cell",
        parts=network.partial_channels,
        auxiliary_skip=network.auxiliary_skip,
        affine=network.affine,
        dtype=dtype,
    )
