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
from unnas_jax.layers.blocks import batch_norm, uniform_fan_in
from unnas_jax.spaces import stages
from unnas_jax.sweep.scores import targets as targets_lib
from unnas_jax.sweep.scores.targets import Basis, Dots, Resized, Waves


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A published combination and how it is learned.

    Attributes:
      bases: what is summed in the target of each stage.
      channels: of the targets of each stage.
      noise: of the images, which have zero mean and unit deviation.
      gaussian: whether the noise is Gaussian of this deviation, else uniform up to it.
      weights: of the stages' mean squared errors.
      side: of the targets, in pixels.
      images: in the one batch.
      steps: of SGD.
      rate, momentum, decay: of SGD; kernels alone decay.
    """

    bases: tuple[tuple[Basis, ...], ...]
    channels: tuple[int, ...]
    noise: float
    gaussian: bool
    weights: tuple[float, ...] = (0.25, 0.5, 1.0)
    side: int = 8
    images: int = 16
    steps: int = 100
    rate: float = 0.1
    momentum: float = 0.9
    decay: float = 4e-5


# Found by the authors' evolutionary search with 20 labelled networks of NAS-Bench-101.
_NASBENCH = Recipe(
    bases=(
        (
            Waves(
                1.1,
                (0.014257, 0.016867, 0.014930, 0.020401, 0.022936, 0.017223, 0.015645, 0.019184,
                 0.015500, 0.014574),
                plane=True,
            ),
        ),
        (
            Waves(
                1.8,
                (0.299108, 0.306036, 0.303757, 0.288022, 0.293448, 0.296083, 0.305855, 0.292883,
                 0.305620, 0.295861),
            ),
            Waves(
                2.9,
                (0.379844, 0.381836, 0.358341, 0.327626, 0.264875, 0.280770, 0.420505, 0.341421,
                 0.303624, 0.420302),
                plane=True,
            ),
            Resized(2.4),
            Dots(1.1, 0.578125, blurred=True),
        ),
        (
            Waves(
                1.5,
                (0.153934, 0.105726, 0.106632, 0.157566, 0.133736, 0.105100, 0.131915, 0.131757,
                 0.102817, 0.109369),
                local=False,
            ),
            Waves(
                0.9,
                (0.197937, 0.203089, 0.103390, 0.204843, 0.135664, 0.209057, 0.245402, 0.086357,
                 0.135183, 0.145260),
                plane=True,
                local=False,
            ),
            Resized(2.2),
            Dots(2.1, 0.4375, blurred=True, local=False),
        ),
    ),
    channels=(64, 48, 16),
    noise=0.1,
    gaussian=False,
)  # fmt: skip

RECIPES: Mapping[str, Recipe] = {
    "nasbench": _NASBENCH,
    "darts": Recipe(
        bases=(
            (Resized(1.3), Dots(1.6, 0.5, blurred=True)),
            (Resized(2.1), Dots(2.2, 0.71875), Dots(1.0, 0.609375, blurred=True, local=False)),
            (Resized(0.5), Dots(1.7, 0.5625, blurred=True)),
        ),
        channels=(80, 32, 80),
        noise=0.2,
        gaussian=True,
    ),
}
"""The combinations of the paper's searches on NAS-Bench-101 (used on NAS-Bench-201, too), DARTS."""


class Heads(nn.Module):
    """Batch norm and a 1x1 convolution with bias for the features of every stage.

    Attributes:
      channels: of the targets of each stage.
      side: of the targets; features of other sides are resized to the nearest pixels.
    """

    channels: tuple[int, ...]
    side: int

    @nn.compact
    def __call__(self, features: Sequence[jax.Array], train: bool) -> list[jax.Array]:
        """Features (N, H, W, C) of every stage to (N, side, side, channels)."""
        outputs = []
        for k, (x, channels) in enumerate(zip(features, self.channels, strict=True)):
            rows, columns = (np.arange(self.side) * size // self.side for size in x.shape[1:3])
            if x.shape[1:3] != (self.side, self.side):
                x = x[:, rows][:, :, columns]
            x = batch_norm(train=train, affine=True, dtype=jnp.float32, name=f"bn_{k}")(x)
            start = uniform_fan_in(x.shape[-1])
            layer = nn.Conv(channels, (1, 1), kernel_init=start, bias_init=start, name=f"conv_{k}")
            outputs.append(layer(x))
        return outputs


def noisy(key: jax.Array, images: jax.Array, recipe: Recipe) -> jax.Array:
    """The images with noise."""
    if recipe.gaussian:
        return images + recipe.noise * jax.random.normal(key, images.shape, images.dtype)
    low, high = -recipe.noise, recipe.noise
    return images + jax.random.uniform(key, images.shape, images.dtype, low, high)


@dataclasses.dataclass(frozen=True)
class Batch:
    """What all networks fit: images (N, H, W, 3) and the targets of each stage."""

    images: jax.Array
    targets: tuple[jax.Array, ...]


jax.tree_util.register_dataclass(Batch, ["images", "targets"], [])


def batch(images: np.ndarray, recipe: Recipe, seed: int) -> Batch:
    """The images (normalised, as many as the recipe has) and targets drawn for them."""
    rng = np.random.default_rng(seed)
    found = tuple(
        targets_lib.target(rng, bases, images, channels, recipe.side)
        for bases, channels in zip(recipe.bases, recipe.channels, strict=True)
    )
    return Batch(jnp.asarray(images, jnp.float32), tuple(jnp.asarray(one) for one in found))


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
    heads: Heads,
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
    heads = Heads(recipe.channels, recipe.side)
    images = noisy(key, data.images, recipe)
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
    heads = Heads(recipe.channels, recipe.side)
    images = noisy(key, data.images, recipe)
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
    heads = Heads(recipe.channels, recipe.side)
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
