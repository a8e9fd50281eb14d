"""From a training's config to what is scored: the architecture's network with any head."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from unnas_jax.core.errors import UserError
from unnas_jax.runs.shared import Shared
from unnas_jax.spaces import networks
from unnas_jax.sweep.scores.registry import Batch, Subject
from unnas_jax.tasks import registry as tasks


def builder(config: Mapping[str, Any], classes: int) -> Callable[[nn.Module, Any], nn.Module]:
    """(head, dtype) -> the network of a valid config (as a dict), for `Subject.build`.

    Raises:
      UserError: the network is of a kind whose head or number format cannot be exchanged.
    """
    plain = {**config, "precision": "float32"}
    task = tasks.task("classification", classes=max(classes, 2), precision="float32")
    network = networks.build_network(plain, task)
    fields = {field.name for field in dataclasses.fields(network)}
    if not {"head", "dtype"} <= fields:
        raise UserError(
            f"config.network.space={config['network']['space']!r}: scores need networks with the "
            "attributes head and dtype; this space's have not"
        )

    def build(head: nn.Module, dtype: Any) -> nn.Module:
        return network.clone(head=head, dtype=dtype)

    return build


def subject(
    config: Mapping[str, Any], batch: Batch, seed: int, supernet: Shared | None = None
) -> Subject:
    """The architecture of a valid config (as a dict), to be scored."""
    space, cell = config["network"]["space"], config["network"]["genotype"]
    return Subject(builder(config, batch.classes), batch, seed, space, cell, supernet)
