"""From a training's config to the subject of a score: the architecture's network with any head."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from unnas_jax.config.options import Config
from unnas_jax.config.schema import TrainConfig
from unnas_jax.core.errors import UserError
from unnas_jax.runs.shared import Shared
from unnas_jax.spaces import networks
from unnas_jax.sweep.scores.registry import Batch, Subject
from unnas_jax.tasks import registry as tasks


def builder(config: Config, classes: int) -> Callable[[nn.Module, Any], nn.Module]:
    """(head, dtype) -> the network of a valid config, for `Subject.build`.

    Raises:
      UserError: the network is of a kind whose head or number format cannot be exchanged.
    """
    plain = dataclasses.replace(TrainConfig.of(config), precision="float32")
    task = tasks.task("classification", classes=max(classes, 2), precision="float32")
    network = networks.build_network(plain, task)
    fields = {field.name for field in dataclasses.fields(network)}
    if not {"head", "dtype"} <= fields:
        raise UserError(
            f"config.network.space={plain.network.space!r}: scores need networks with the "
            "attributes head and dtype; this space's have not"
        )

    def build(head: nn.Module, dtype: Any) -> nn.Module:
        return network.clone(head=head, dtype=dtype)

    return build


def subject(config: Config, batch: Batch, seed: int, supernet: Shared | None = None) -> Subject:
    """The architecture of a valid config, to be scored."""
    section = TrainConfig.of(config).network
    build = builder(config, batch.classes)
    return Subject(build, batch, seed, section.space, section.genotype, supernet)
