"""A search space whose cells share programs: the second half of docs/walks/space.md."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

import unnas_jax as un
from tests.toy_space import Chains
from unnas_jax.layers.blocks import ReluConvBN, Stem
from unnas_jax.spaces.choice import Choice
from unnas_jax.spaces.programs import Program

SIZES = (1, 3, 5)


class Switched(nn.Module):
    """The chains of one length; `path` is data: the place of each size in `SIZES`."""

    length: int
    width: int
    stem: str
    head: nn.Module
    dtype: Any

    @nn.compact
    def __call__(self, inputs, train):
        path = self.variable("cell", "path", jnp.zeros, self.length, jnp.int32).value
        x, _ = Stem(self.stem, self.width, dtype=self.dtype, name="stem")(inputs, train)
        layers = [
            (f"{size}x{size}", ReluConvBN(self.width, (size, size), dtype=self.dtype))
            for size in SIZES
        ]
        for k in range(self.length):
            x = Choice(tuple(layers), name=f"layer_{k}")(x, path[k], train)
        return self.head(x, train), None


class SharingChains(Chains):
    """`Chains` that compile once for all chains of a length."""

    def kind(self, cell):
        return str(len(cell.sizes))

    def program(self, own):
        path = np.array([SIZES.index(size) for size in own.sizes], np.int32)
        network = Switched(len(path), own.width, own.stem, own.head, own.dtype)

        def place(variable):
            name, *rest = variable
            if not name.startswith("layer_"):
                return variable
            size = own.sizes[int(name.removeprefix("layer_"))]
            return (name, f"{size}x{size}", *rest)

        return Program(network, own, {"cell": {"path": path}}, place)


un.register_space("sharing_chains", SharingChains())
