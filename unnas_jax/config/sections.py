"""The sections of a valid config as typed, frozen records: what functions below the runs take."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a config; `unnas_jax.config.schema` says what its fields mean."""

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Self:
        """The record of a section of a valid config; fields that it does not know are left out."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in section.items() if name in names})


@dataclasses.dataclass(frozen=True)
class Weights(Section):
    """How weights are trained; searches have no warm-up and no `nesterov`."""

    learning_rate: float
    momentum: float
    weight_decay: float
    clip_norm: float
    final_learning_rate: float = 0.0
    warmup_epochs: int = 0
    warmup_factor: float = 0.0
    nesterov: bool = False
    optimizer: str = "sgd"
    optimizer_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Alphas(Section):
    """How alphas are drawn and trained."""

    learning_rate: float
    b1: float
    b2: float
    weight_decay: float
    init_scale: float = 1e-3
    optimizer: str = "adam"
    optimizer_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
