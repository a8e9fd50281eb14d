"""The inputs of the rectifiers of any network, without a change to the network.

The program of a function is traced and evaluated again, operation by operation, with a visit to
every `jax.nn.relu` on the way, also in branches and loops.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from unnas_jax.core.errors import UserError

Visit = Callable[[jax.Array], jax.Array]


def visited(function: Callable[..., Any], visit: Visit) -> Callable[..., jax.Array]:
    """The function that returns, for the arguments of another, the sum of what a visit returns.

    Args:
      function: of arrays in trees.
      visit: takes the input of a rectifier; its results have one shape and type for all. Rectifiers
        whose results are not used count, too.

    Raises:
      UserError: there is no rectifier, or one within an operation that cannot be looked into.
    """

    def run(*arguments: Any) -> jax.Array:
        closed = jax.make_jaxpr(function)(*arguments)
        leaves = jax.tree.leaves(arguments)
        _, total = _evaluate(closed.jaxpr, closed.consts, leaves, visit)
        if total is None:
            raise UserError("score: the network has no rectifier; use a score that needs none")
        return total

    return run


def _add(one: jax.Array | None, other: jax.Array | None) -> jax.Array | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _bodies(eqn: Any) -> list[core.Jaxpr]:
    """The programs within an operation."""
    found = []
    for value in eqn.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, core.ClosedJaxpr):
                found.append(one.jaxpr)
            elif isinstance(one, core.Jaxpr):
                found.append(one)
    return found


def _is_rectifier(eqn: Any) -> bool:
    if eqn.primitive.name != "custom_jvp_call":
        return False
    inner = eqn.params["call_jaxpr"].eqns
    return len(inner) == 1 and inner[0].params.get("name") == "relu"


def _has(jaxpr: core.Jaxpr) -> bool:
    return any(_is_rectifier(eqn) or any(_has(body) for body in _bodies(eqn)) for eqn in jaxpr.eqns)


def _evaluate(
    jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], visit: Visit
) -> tuple[list[Any], jax.Array | None]:
    """The results of a program, and the sum of the visits, None if there were none."""
    values: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    values.update(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    total: jax.Array | None = None
    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        if _is_rectifier(eqn):
            total = _add(total, visit(inputs[0]))
        if not _is_rectifier(eqn) and any(_has(body) for body in _bodies(eqn)):
            results, more = _inside(eqn, inputs, visit)
            total = _add(total, more)
        else:
            params = eqn.primitive.get_bind_params(eqn.params)
            results = eqn.primitive.bind(*inputs, **params)
            results = results if eqn.primitive.multiple_results else [results]
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars], total


def _inside(eqn: Any, inputs: list[Any], visit: Visit) -> tuple[list[Any], jax.Array | None]:
    """`_evaluate` for an operation with programs within."""
    name, params = eqn.primitive.name, eqn.params
    if name == "cond":
        return _branches(params["branches"], inputs, visit)
    if name == "scan":
        return _scan(params, inputs, visit)
    bodies = _bodies(eqn)
    if name == "while" or len(bodies) != 1:
        raise UserError(
            f"score: within the operation {name!r} of the network rectifiers cannot be told apart; "
            "use a score that needs none of their codes"
        )
    # Calls: jit, remat, custom derivatives. Their programs take the call's own arguments.
    closed = [value for value in params.values() if isinstance(value, core.ClosedJaxpr)]
    return _evaluate(bodies[0], closed[0].consts if closed else (), inputs, visit)


def _branches(
    branches: Sequence[core.ClosedJaxpr], inputs: list[Any], visit: Visit
) -> tuple[list[Any], jax.Array | None]:
    index, *operands = inputs

    def shape_of(branch: core.ClosedJaxpr) -> Any:
        return jax.eval_shape(
            lambda own: _evaluate(branch.jaxpr, branch.consts, own, visit)[1], operands
        )

    shape = next(shape for shape in map(shape_of, branches) if shape is not None)

    def run(branch: core.ClosedJaxpr) -> Callable[..., Any]:
        def evaluate(*own: Any) -> tuple[list[Any], jax.Array]:
            results, total = _evaluate(branch.jaxpr, branch.consts, own, visit)
            return results, jnp.zeros(shape.shape, shape.dtype) if total is None else total

        return evaluate

    results, total = jax.lax.switch(index, [run(branch) for branch in branches], *operands)
    return results, total


def _scan(
    params: dict[str, Any], inputs: list[Any], visit: Visit
) -> tuple[list[Any], jax.Array | None]:
    fixed, carried = params["num_consts"], params["num_carry"]
    body: core.ClosedJaxpr = params["jaxpr"]
    consts, carry, rows = (
        inputs[:fixed],
        inputs[fixed : fixed + carried],
        inputs[fixed + carried :],
    )

    def step(carry: list[Any], row: Any) -> tuple[list[Any], tuple[list[Any], Any]]:
        results, total = _evaluate(body.jaxpr, body.consts, [*consts, *carry, *row], visit)
        return results[:carried], (results[carried:], total)

    carry, (stacked, totals) = jax.lax.scan(step, carry, rows, params["length"], params["reverse"])
    return [*carry, *stacked], jnp.sum(totals, axis=0)
