"""One program for many cells: networks in which the cell is data, and what lies where in them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from flax import traverse_util

Path = tuple[str, ...]
Flat = dict[Path, np.ndarray]
"""Variables by collection and path: ("params", "stem", ..., "kernel")."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program for many networks, which differ in variables only.

    Attributes:
      network: called as network(inputs, train); jitted functions take it as a static argument.
      own: the network of one cell, whose variables are drawn.
      cell: variables that say which cell it is, by collection; empty if `network` is `own`.
      place: from a path in `own`, without its collection, to that in `network`.
    """

    network: nn.Module
    own: nn.Module
    cell: dict[str, Any]
    place: Callable[[Path], Path]


def alone(own: nn.Module) -> Program:
    """The program of a cell that shares none: its own network."""
    return Program(own, own, {}, lambda path: path)


def placed(
    variables: Mapping[Path, np.ndarray],
    template: Mapping[Path, Any],
    place: Callable[[Path], Path],
) -> Flat:
    """A network's variables among those of a program for many cells.

    Args:
      variables: of the network.
      template: the program's shapes by path; those of other collections are left out.
      place: from a path, without its collection, in the network to that in the program. There a
        variable fills the first entries of every axis.

    Returns:
      the program's variables; what no variable of the network fills is 0, or 1 for a running
      variance.
    """
    collections = {path[0] for path in variables}
    found = {
        path: np.full(spec.shape, float(path[-1] == "var"), np.float32)
        for path, spec in template.items()
        if path[0] in collections
    }
    for path, value in variables.items():
        found[path[0], *place(path[1:])][tuple(slice(size) for size in value.shape)] = value
    return found


def placed_tree(program: Program, variables: Mapping[str, Any], template: Any) -> dict[str, Any]:
    """`placed` of a network's variables, by collection as flax has them, and the program's cell.

    Args:
      program: of the network.
      variables: of `program.own`.
      template: the shapes of `program.network`'s variables.
    """
    flat = traverse_util.flatten_dict(dict(variables))
    if program.cell:
        flat = placed(flat, traverse_util.flatten_dict(dict(template)), program.place)
    nested: dict[str, Any] = traverse_util.unflatten_dict(flat)
    return {**nested, **program.cell}
