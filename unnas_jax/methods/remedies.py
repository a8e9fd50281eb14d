"""What any method derived from `Darts` takes as options: remedies against collapse, mostly.

`mixing`, `zero_one`, `threshold`: FairDARTS (Chu et al., 2020). `perturbation`: SmoothDARTS (Chen
and Hsieh, 2020). `auxiliary_decay`, with config.network.auxiliary_skip: DARTS- (Chu et al., 2021).
`drop_path`, `cutout_rises`: in a search, as RobustDARTS has them (Zela et al., 2020); for `adapt`
see `unnas_jax.methods.adaptive`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from unnas_jax.core.errors import UserError

DEFAULTS: Mapping[str, Any] = {
    "mixing": "softmax",  # Or sigmoid: operations of an edge do not compete (FairDARTS).
    "zero_one": 0.0,  # The weight of FairDARTS' loss that draws sigmoids to 0 or 1; it takes 10.
    "threshold": 0.0,  # Operations of a smaller weight are not in the cells; FairDARTS takes 0.85.
    "perturbation": "none",  # The mixing weights move in every weight step (SmoothDARTS): random,
    # or adversarial, to where the loss is large;
    "perturbation_first": 0.03,  # by up to so much in the first epoch, and
    "perturbation_last": 0.3,  # by nearly so much in the last one.
    "auxiliary_decay": "linear",  # Or cosine: of the auxiliary skips' weight, from 1 (DARTS-).
    "drop_path": 0.0,  # The probability, reached in the last epoch, that an edge is dropped.
    "cutout_rises": False,  # Images lose config.input.cutout's square with a probability that rises
    # from 0 to 1 in the last epoch.
    "curvature_every": 0,  # So many epochs: the largest eigenvalue in the alphas; 0: never.
    "stop": "none",  # Or a rule of `stop_rules`, by which a search ends early.
    "adapt": "none",  # Or weight_decay or drop_path: when the eigenvalue jumps, a search goes back,
    "adapt_factor": 3.0,  # and on with so many times of it,
    "adapt_limit": 0.03,  # but no more than this (R-DARTS with adaptive regularisation).
    "alphas_clip_norm": 0.0,  # The alphas' gradient is clipped to this norm; 0: it is not.
}

CHOICES = {
    "mixing": ("softmax", "sigmoid"),
    "perturbation": ("none", "random", "adversarial"),
    "auxiliary_decay": ("linear", "cosine"),
}


def validate(options: Mapping[str, Any]) -> None:
    """Raises `UserError` for values that are none, or do not go together."""
    for key, choices in CHOICES.items():
        if options[key] not in choices:
            raise UserError(
                f"config.method.{key}={options[key]!r}: use one of {', '.join(choices)}"
            )
    for key in [key for key, value in DEFAULTS.items() if isinstance(value, float)]:
        if options[key] < 0:
            raise UserError(f"config.method.{key}={options[key]!r}: must be at least 0")
    sigmoid = options["mixing"] == "sigmoid"
    if options["zero_one"] and not sigmoid:
        raise UserError(
            f"config.method.zero_one={options['zero_one']!r}: is about sigmoids; set "
            "config.method.mixing='sigmoid', or use 0"
        )
    if options["drop_path"] >= 1:
        raise UserError(f"config.method.drop_path={options['drop_path']!r}: must be less than 1")
    if options["threshold"] >= 1:
        raise UserError(
            f"config.method.threshold={options['threshold']!r}: no operation has such a weight; "
            "use less than 1"
        )
    if options["perturbation"] != "none" and sigmoid:
        raise UserError(
            f"config.method.perturbation={options['perturbation']!r}: is about a softmax; set "
            "config.method.mixing='softmax', or use 'none'"
        )


def extent(options: Mapping[str, Any], epoch: Any, epochs: int) -> Any:
    """How far a mixing weight moves at most in an epoch, counted from 0 (SmoothDARTS)."""
    first, last = options["perturbation_first"], options["perturbation_last"]
    return first + (last - first) * epoch / epochs


def risen(epoch: Any, epochs: int) -> Any:
    """How far regularisation has risen in an epoch, counted from 0: to 1 in the last (R-DARTS)."""
    return epoch / max(epochs - 1, 1)


def auxiliary(options: Mapping[str, Any], epoch: Any, epochs: int) -> Any:
    """The weight of the auxiliary skips in an epoch, counted from 0: from 1 down (DARTS-)."""
    share = epoch / epochs
    if options["auxiliary_decay"] == "cosine":
        return (1 + jnp.cos(jnp.pi * share)) / 2
    return 1 - share


def on_simplex(weights: jax.Array) -> jax.Array:
    """Rows (E, O) cut to 0 and 1 and divided by their sums; one of zeros becomes its largest's."""
    cut = jnp.clip(weights, 0, 1)
    largest = jax.nn.one_hot(jnp.argmax(weights, 1), weights.shape[1], dtype=weights.dtype)
    cut = jnp.where(jnp.sum(cut, 1, keepdims=True) > 0, cut, largest)
    return cut / jnp.sum(cut, 1, keepdims=True)


def moved(weights: jax.Array, shift: jax.Array) -> jax.Array:
    """Mixing weights with a shift, (E, O): edges keep their sums, and what is 0 stays 0."""
    sums = jnp.sum(weights, 1, keepdims=True)
    return on_simplex(jnp.where(weights > 0, weights / sums + shift, 0)) * sums


def shaken(weights: Mapping[str, jax.Array], key: jax.Array, extent: Any) -> dict[str, jax.Array]:
    """Mixing weights of all kinds of cell, moved by draws from U(-extent, extent)."""
    kinds = sorted(weights)
    keys = dict(zip(kinds, jax.random.split(key, len(kinds)), strict=True))
    result = dict(weights)
    for kind, own in keys.items():
        shape = weights[kind].shape
        shift = extent * jax.random.uniform(own, shape, jnp.float32, -1, 1)
        result[kind] = moved(weights[kind], shift)
    return result


def zero_one(weights: Mapping[str, jax.Array]) -> jax.Array:
    """FairDARTS' zero-one loss of sigmoids: -mean (sigmoid - 1/2)^2, least where all are 0 or 1."""
    every = jnp.concatenate([weights[kind].ravel() for kind in sorted(weights)])
    return -jnp.mean((every - 0.5) ** 2)
