"""The regression objective of GenNAS: how well a network fits synthetic targets after few steps.

One batch of images, targets fixed once, noise on the images drawn anew at every step; a head at the
end of each stage. The loss that is left ranks architectures, without a label (Li et al., NeurIPS
2021: Spearman's rho of about 0.85 with accuracy on NAS-Bench-101).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from unnas_jax.core.errors import UserError
from unnas_jax.layers.heads import StageHeads
from unnas_jax.spaces import stages
from unnas_jax.tasks.combinations import COMBINATIONS, Combination


@dataclasses.dataclass(frozen=True)
class Recipe(Combination):
    """A published combination and how it is learned.

    Attributes:
      images: in the one batch.
      steps: of SGD.
      rate, momentum, decay: of SGD; kernels alone decay.
    """

    images: int = 16
    steps: int = 100
    rate: float = 0.1
    momentum: float = 0.9
    decay: float = 4e-5


RECIPES: Mapping[str, Recipe] = {
    name: Recipe(**{field.name: getattr(one, field.name) for field in dataclasses.fields(one)})
    for name, one in COMBINATIONS.items()
}
"""The recipes of the paper's searches on NAS-Bench-101 (used on NAS-Bench-201, too) and DARTS."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """What all networks fit: images (N, H, W, 3) and the targets of each stage."""

    images: jax.Array
    targets: tuple[jax.Array, ...]


jax.tree_util.register_dataclass(Batch, ["images", "targets"], [])


def batch(images: np.ndarray, recipe: Recipe, seed: int) -> Batch:
    """The images (normalised, as many as the recipe has) and targets drawn for them."""
    seen = jnp.asarray(images, jnp.float32)
    return Batch(seen, _targets(jax.random.key(seed), seen, jnp.arange(len(seen)), recipe))


@functools.partial(jax.jit, static_argnames="recipe")
def _targets(
    key: jax.Array, images: jax.Array, records: jax.Array, recipe: Recipe
) -> tuple[jax.Array, ...]:
    return recipe.targets(key, images, records)


def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """SGD with momentum; what has more than one axis decays."""
    return optax.chain(
        optax.add_decayed_weights(
            recipe.decay, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
        ),
        optax.sgd(recipe.rate, momentum=recipe.momentum),
    )


def error(
    network: nn.Module,
    heads: StageHeads,
    recipe: Recipe,
    variables: Mapping[str, Any],
    images: jax.Array,
    targets: Sequence[jax.Array],
    train: bool,
) -> tuple[jax.Array, dict[str, Any]]:
    """The weighted sum of the stages' mean squared errors, and the new running statistics.

    `variables` are those of the network and of the heads, each flax's, by these names.
    """
    _, state = network.apply(
        variables["network"], images, train, mutable=["batch_stats", stages.COLLECTION]
    )
    outputs, head_state = heads.apply(
        variables["heads"], stages.of(state), train, mutable=["batch_stats"]
    )
    errors = [jnp.mean((a - b) ** 2) for a, b in zip(outputs, targets, strict=True)]
    total = sum(weight * one for weight, one in zip(recipe.weights, errors, strict=True))
    statistics = {"network": state["batch_stats"], "heads": head_state["batch_stats"]}
    return jnp.asarray(total), statistics


def _with(variables: Mapping[str, Any], **parts: Mapping[str, Any]) -> dict[str, Any]:
    """Variables whose collections of the network and of the heads are replaced."""
    return {
        name: {**own, **{collection: new[name] for collection, new in parts.items()}}
        for name, own in variables.items()
    }


@functools.partial(
    jax.jit, static_argnames=("network", "recipe"), donate_argnames=("variables", "moments")
)
def _step(
    network: nn.Module,
    recipe: Recipe,
    variables: dict[str, Any],
    moments: Any,
    key: jax.Array,
    data: Batch,
) -> tuple[dict[str, Any], Any]:
    heads = StageHeads(recipe.channels, recipe.side)
    images = recipe.noisy(key, data.images)
    params = {name: own["params"] for name, own in variables.items()}

    def loss(params: Any) -> tuple[jax.Array, Any]:
        own = _with(variables, params=params)
        return error(network, heads, recipe, own, images, data.targets, train=True)

    gradient, statistics = jax.grad(loss, has_aux=True)(params)
    updates, moments = optimizer(recipe).update(gradient, moments, params)
    params = optax.apply_updates(params, updates)
    return _with(variables, params=params, batch_stats=statistics), moments


@functools.partial(jax.jit, static_argnames=("network", "recipe"))
def _left(
    network: nn.Module, recipe: Recipe, variables: dict[str, Any], key: jax.Array, data: Batch
) -> jax.Array:
    heads = StageHeads(recipe.channels, recipe.side)
    images = recipe.noisy(key, data.images)
    return error(network, heads, recipe, variables, images, data.targets, train=False)[0]


def loss_left(
    network: nn.Module,
    variables: Mapping[str, Any],
    data: Batch,
    recipe: Recipe,
    seed: int,
    every: int = 0,
) -> list[float]:
    """The loss of a network, in evaluation mode, after the recipe's steps.

    Programs are compiled once for each network module: give those of `nasbench101.padded` and
    `nasbench201.supernet`, whose cells are variables, to score many cells.

    Args:
      network: called as network(inputs, train); marks the ends of its stages.
      variables: its fresh variables (flax's, arrays of NumPy will do).
      data: see `batch`.
      recipe: see `RECIPES`.
      seed: of the noise and of the heads' weights.
      every: evaluate after every so many steps; 0: only at the end.

    Returns:
      The losses, the last one that of the score. Not finite ones are infinite.
    """
    key = jax.random.key(seed)
    heads = StageHeads(recipe.channels, recipe.side)
    _, state = jax.eval_shape(
        lambda own: network.apply(
            own, data.images, False, mutable=["batch_stats", stages.COLLECTION]
        ),
        variables,
    )
    ends = stages.of(state)
    if len(ends) != len(recipe.channels):
        raise UserError(
            f"the network has {len(ends)} stages, the regression {len(recipe.channels)} targets; "
            "use a network of as many stages, or another score"
        )
    start = heads.lazy_init(jax.random.fold_in(key, 0), ends, train=False)
    both = jax.tree.map(jnp.array, {"network": dict(variables), "heads": dict(start)})
    moments = optimizer(recipe).init({name: own["params"] for name, own in both.items()})
    losses = []
    for step in range(1, recipe.steps + 1):
        both, moments = _step(
            network, recipe, both, moments, jax.random.fold_in(key, 2 * step), data
        )
        if step == recipe.steps or (every and step % every == 0):
            left = float(_left(network, recipe, both, jax.random.fold_in(key, 2 * step + 1), data))
            losses.append(left if np.isfinite(left) else float("inf"))
    return losses
