"""The parts of a valid config as typed, frozen records: what functions take that need a part.

`unnas_jax.config.schema` says what the fields mean. A record with records in it is made of the
whole config: `Batches.of(config)`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a config, or several of them."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """The record of a valid config, or of a section; it leaves out what it has no field for."""
        values = {}
        for field in dataclasses.fields(cls):
            if field.name in config:
                value, kind = config[field.name], field.type
                if isinstance(kind, type) and issubclass(kind, Section):
                    value = kind.of(value)
                values[field.name] = value
        return cls(**values)


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


@dataclasses.dataclass(frozen=True)
class Input(Section):
    """How images are cropped and augmented."""

    crop: int
    resize: int
    train_crop: str = "random_resized"
    pad: int = 0
    lighting: float = 0.0
    gray: float = 0.0
    resampling: str = "area"
    swapped_statistics: bool = False
    mirrored: bool = False


@dataclasses.dataclass(frozen=True)
class Train(Section):
    """How long, and on how many images at once; what only trainings have."""

    batch_size: int
    epochs: int
    max_steps: int = -1
    seeds_together: int = -1
    ema: float = 0.0
    precise_bn_images: int = 0


@dataclasses.dataclass(frozen=True)
class Eval(Section):
    """How a network is evaluated."""

    batch_size: int
    max_images: int = -1
    every_epochs: int = 1
    crop: str = "centre"
    whole_size: tuple[int, int] = (1025, 2049)


@dataclasses.dataclass(frozen=True)
class Regularisation(Section):
    """The fields of a training's section `network` that are no facts of the network."""

    auxiliary_weight: float
    drop_path: float


@dataclasses.dataclass(frozen=True)
class Batches(Section):
    """What the streams of batches are made of."""

    input: Input
    train: Train
    eval: Eval
    workers: int


@dataclasses.dataclass(frozen=True)
class Training(Section):
    """What the steps of a training are made of."""

    weights: Weights
    train: Train
    input: Input
    network: Regularisation


@dataclasses.dataclass(frozen=True)
class Pace(Section):
    """How long a run is, and how often it tells and saves."""

    train: Train
    log_every_steps: int
    checkpoint_every_steps: int
