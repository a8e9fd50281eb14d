"""Multiply-adds of a program as JAX traces it: what the counts from shapes are compared with."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core as jax_core


def _equations(jaxpr: jax_core.Jaxpr, caller: str = "") -> Iterator[tuple[str, Any]]:
    """All equations of a program with their scopes, those of the programs it calls included."""
    for equation in jaxpr.eqns:
        scope = "/".join(filter(None, (caller, str(equation.source_info.name_stack))))
        yield scope, equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(inner, jax_core.ClosedJaxpr):
                    yield from _equations(inner.jaxpr, scope)
                elif isinstance(inner, jax_core.Jaxpr):
                    yield from _equations(inner, scope)


def _of_equation(equation: Any) -> int:
    """Of one convolution or matrix product; everything else counts nothing."""
    out = int(np.prod(equation.outvars[0].aval.shape))
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        features = equation.params["dimension_numbers"].rhs_spec[0]
        return out * int(np.prod(kernel)) // kernel[features]
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return out * int(np.prod([left[axis] for axis in contracted]))
    return 0


def multiply_adds(function: Callable[..., Any], *arguments: Any) -> tuple[dict[str, int], Any]:
    """The multiply-adds of a traceable function by scope, in order, and its outputs' shapes."""
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    counts: dict[str, int] = {}
    for scope, equation in _equations(jaxpr.jaxpr):
        number = _of_equation(equation)
        if number:
            counts[scope] = counts.get(scope, 0) + number
    return counts, shapes
