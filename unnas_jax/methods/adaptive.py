"""Regularisation that grows when the eigenvalue jumps: ADA of RobustDARTS (Zela et al., 2020).

Where `stop_rules.eigenvalue` would end a search, the search goes back to the epoch that the rule
names, and on from there with stronger regularisation. Once that has reached its limit, the search
goes on to its end, whatever the eigenvalue does.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from unnas_jax.config.sections import MethodConfig
from unnas_jax.core.errors import UserError
from unnas_jax.learning import optim
from unnas_jax.methods import remedies

KINDS = ("weight_decay", "drop_path")
"""What can grow: config.weights.weight_decay or config.method.drop_path."""


def _options(config: MethodConfig) -> Mapping[str, Any]:
    return {**remedies.DEFAULTS, **config.method}


def strength(config: MethodConfig) -> float:
    """How strong the regularisation is that grows in a config's search."""
    decays = _options(config)["adapt"] == "weight_decay"
    return float(config.weights.weight_decay if decays else _options(config)["drop_path"])


def can_grow(config: MethodConfig) -> bool:
    """Whether there is regularisation in a config that can grow."""
    options = _options(config)
    return options["adapt"] != "none" and strength(config) < options["adapt_limit"]


def grown(config: MethodConfig) -> MethodConfig:
    """The config by which a search goes on from where it went back to."""
    options = _options(config)
    found = float(min(strength(config) * options["adapt_factor"], options["adapt_limit"]))
    if options["adapt"] == "weight_decay":
        weights = dataclasses.replace(config.weights, weight_decay=found)
        return dataclasses.replace(config, weights=weights)
    return dataclasses.replace(config, method={**config.method, "drop_path": found})


def validate(config: MethodConfig, options: Mapping[str, Any], stages: int) -> None:
    """Raises `UserError` for values by which nothing can grow.

    Args:
      config: of a search.
      options: of its method, complete and of the right types.
      stages: how many its method has.
    """
    kind = options["adapt"]
    if kind == "none":
        return
    where = f"config.method.adapt={kind!r}"
    if kind not in KINDS:
        raise UserError(f"{where}: use one of none, {', '.join(KINDS)}")
    if stages > 1:
        raise UserError(
            f"{where}: the method has {stages} stages, between which no search goes back; use "
            "'none'"
        )
    if not options["curvature_every"]:
        raise UserError(f"{where}: needs eigenvalues; set config.method.curvature_every, such as 2")
    if options["stop"] != "none":
        raise UserError(
            f"{where}: goes back where config.method.stop={options['stop']!r} would end the "
            "search; set one of them to 'none'"
        )
    if options["adapt_factor"] <= 1:
        raise UserError(
            f"config.method.adapt_factor={options['adapt_factor']!r}: must be greater than 1"
        )
    of = "config.weights.weight_decay" if kind == "weight_decay" else "config.method.drop_path"
    first, limit = strength(config), options["adapt_limit"]
    if not 0 < first < limit:
        raise UserError(
            f"{where}: grows from {of}={first!r} to config.method.adapt_limit={limit!r}; the first "
            "must be above 0 and less than the second"
        )
    if kind == "drop_path" and limit >= 1:
        raise UserError(f"config.method.adapt_limit={limit!r}: drop path must stay less than 1")
    if kind == "weight_decay" and config.weights.optimizer == optim.OBJECT:
        raise UserError(
            f"{where}: the decay of an optimizer that is passed as an object is not known; name "
            "one in config.weights.optimizer"
        )
