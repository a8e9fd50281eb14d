"""Runs a function for its results alone: what they do not need is traced, never computed."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal
from jax.interpreters import partial_eval


def without(function: Callable[..., Any], *examples: Any) -> Callable[..., Any]:
    """A pure function that gives the same bits; some leaves of its result are NumPy arrays.

    To draw the weights of a network flax calls the network. What it computes of the weights alone,
    such as kernels joined to one, would be compiled operation by operation, which takes seconds.

    Args:
      function: of arrays.
      examples: arguments of the shapes and types of those to come.
    """
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*examples)
    jaxpr, _ = partial_eval.dce_jaxpr(traced.jaxpr, True, instantiate=True)

    def run(*arguments: Any) -> Any:
        values = _evaluated(jaxpr, traced.consts, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), values)

    return run


def _evaluated(jaxpr: Jaxpr, constants: list[Any], arguments: list[Any]) -> list[Any]:
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *arguments), strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        values = _applied(equation, [value(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, values, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _applied(equation: JaxprEqn, values: list[Any]) -> list[Any]:
    primitive = equation.primitive
    out: Any = equation.outvars[0].aval
    # Both are done by NumPy, because each would be a program to compile: a draw on the host, and an
    # array of equal numbers.
    if primitive.name == "pure_callback":
        found: list[Any] = equation.params["callback"](*map(np.asarray, values))
        return found
    if primitive.name == "broadcast_in_dim" and len(values) == 1 and np.ndim(values[0]) == 0:
        return [np.full(out.shape, values[0], out.dtype)]
    results = primitive.bind(*values, **primitive.get_bind_params(equation.params))
    return results if primitive.multiple_results else [results]
