"""The curvature of a search: the largest eigenvalue of the Hessian of a loss in the alphas.

When it grows the cells will do worse once they are discrete (RobustDARTS, Zela et al., 2020). It
takes products of the Hessian with vectors, some 10 to 20, each of which costs two to three
gradients; the Hessian itself is never made.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from unnas_jax.core import sharding
from unnas_jax.methods.base import SearchMethod, SearchState
from unnas_jax.methods.draws import ALPHA_STEP, Moment, MomentLoss
from unnas_jax.tasks.base import Batch, Examples

MOST_PRODUCTS = 30
_TOLERANCE = 1e-3  # Relative to the eigenvalue.


def product(
    method: SearchMethod, loss: MomentLoss, state: SearchState, batch: Batch, vector: jax.Array
) -> jax.Array:
    """The Hessian of a batch's loss in the alphas times a vector, both flat: to be traced.

    By reverse over reverse mode, since not every layer has a forward mode.

    Args:
      method: of the search.
      loss: its loss in training.
      state: at which it is taken; the weights are fixed.
      batch: split over the mesh.
      vector: float32, of all alphas in the order of `ravel_pytree`.
    """
    examples = method.examples(ALPHA_STEP, state.step, batch)

    def of_rows(variables: tuple[Any, ...], examples: Examples) -> Any:
        params, alphas, batch_stats, moment, vector = variables
        flat, tree = ravel_pytree(alphas)

        def slope(flat: jax.Array) -> jax.Array:
            of_alphas = jax.grad(loss, argnums=1, has_aux=True)
            grads, _ = of_alphas(params, tree(flat), batch_stats, moment, examples)
            return jnp.vdot(ravel_pytree(grads)[0], vector)

        return sharding.total(jax.grad(slope)(flat))

    moment = Moment(state.step, jnp.int32(ALPHA_STEP))
    variables = (state.params, state.alphas, state.batch_stats, moment, vector)
    found: jax.Array = sharding.by_device(of_rows, method.setting.mesh)(variables, examples)
    return found


def largest(program: Any, state: SearchState, batch: Batch, mesh: Mesh) -> float:
    """The largest eigenvalue; `program` is `product`, compiled for (state, batch, vector)."""

    def of_vector(vector: np.ndarray) -> np.ndarray:
        there = sharding.replicate(vector.astype(np.float32), mesh)
        return np.asarray(program(state, batch, there), np.float64)

    size = sum(value.size for value in jax.tree.leaves(state.alphas))
    return largest_eigenvalue(of_vector, size)


def largest_eigenvalue(
    product: Callable[[np.ndarray], np.ndarray], size: int, most: int = MOST_PRODUCTS
) -> float:
    """The largest eigenvalue, with its sign, of a symmetric matrix, by Lanczos' method.

    Every vector is made orthogonal to all before, and it ends when the eigenvalue is within a
    thousandth, or after `most` products.

    Args:
      product: of the matrix and a vector (size,).
      size: of the matrix.
      most: products.
    """
    vector = np.random.default_rng(0).standard_normal(size)
    basis = [vector / np.linalg.norm(vector)]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = np.asarray(product(basis[-1]), np.float64)
        diagonal.append(float(basis[-1] @ image))
        for _ in range(2):  # Twice is enough for rounding.
            for known in basis:
                image = image - (known @ image) * known
        rest = float(np.linalg.norm(image))
        matrix = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        values, vectors = np.linalg.eigh(matrix)
        largest, error = float(values[-1]), rest * abs(float(vectors[-1, -1]))
        scale = max(np.abs(values).max(), np.finfo(np.float64).tiny)
        if error <= _TOLERANCE * abs(largest) or rest <= 1e-10 * scale:
            return largest
        if len(basis) in (size, most):
            return largest
        beside.append(rest)
        basis.append(image / rest)
