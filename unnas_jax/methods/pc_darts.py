"""PC-DARTS (Xu et al., 2020): partial channels, and edges that have weights as operations have.

config.network.partial_channels says which share of the channels is worked on; how is written in
`unnas_jax.spaces.partial`. A softmax over the edges that enter a node steadies their choice.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from unnas_jax.config.sections import MethodConfig
from unnas_jax.core.errors import UserError
from unnas_jax.methods.base import Alphas
from unnas_jax.methods.darts import Darts
from unnas_jax.spaces import mixed


def edge_weights(betas: jax.Array, nodes: Sequence[int]) -> jax.Array:
    """The softmax of the betas (E,) within the edges that enter the same of `nodes` (E,)."""
    ends = [k + 1 for k in range(len(nodes)) if k + 1 == len(nodes) or nodes[k + 1] != nodes[k]]
    return jnp.concatenate([jax.nn.softmax(part) for part in jnp.split(betas, ends[:-1])])


class PCDarts(Darts):
    """PC-DARTS: `beta_normal` and `beta_reduce`, (E,), are architecture parameters, too."""

    name = "pc_darts"

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """A warm-up of the weights' learning rate, which the recipe for ImageNet has; 0: none."""
        return {"warmup_epochs": 0}

    @classmethod
    def validate(cls, config: MethodConfig) -> None:
        """Checks the warm-up, and that the operations of an edge share its weight."""
        super().validate(config)
        options = cls.completed(config.method)
        warmup = options["warmup_epochs"]
        if warmup < 0:
            raise UserError(f"config.method.warmup_epochs={warmup!r}: must be at least 0")
        if options["mixing"] != "softmax":
            raise UserError(
                "config.method.mixing='sigmoid': the edges' weights are those of operations that "
                "compete; use 'softmax', or the method 'darts'"
            )

    def initial_alphas(self, key: jax.Array) -> dict[str, jax.Array]:
        """The betas are drawn as the alphas are."""
        kinds, edges = sorted(self.operations()), len(self.targets())
        draws = jax.random.normal(jax.random.fold_in(key, 1), (len(kinds), edges), jnp.float32)
        betas = self.config.alphas.init_scale * draws
        named = {f"beta_{kind}": betas[k] for k, kind in enumerate(kinds)}
        return {**super().initial_alphas(key), **named}

    def mix(self, alphas: Alphas) -> dict[str, jax.Array]:
        """softmax(alpha)[o] softmax(beta)[e]: they sum to the weight of the edge e."""
        shares = super().mix({kind: alphas[kind] for kind in self.operations()})
        nodes = self.targets()
        return {
            kind: own * edge_weights(alphas[f"beta_{kind}"], nodes)[:, None]
            for kind, own in shares.items()
        }

    def targets(self) -> Sequence[int]:
        """The node that every edge enters."""
        return [node for _, node in mixed.of_config(self.config).edges(self.operations())]

    def schedule(self) -> optax.Schedule:
        """In epoch e of a warm-up of W epochs (e + 1) / W of the cosine's rate."""
        cosine, warmup = super().schedule(), self.options["warmup_epochs"]
        if not warmup:
            return cosine
        per_epoch = self.setting.steps_per_epoch
        return lambda step: cosine(step) * jnp.minimum((step // per_epoch + 1) / warmup, 1.0)
