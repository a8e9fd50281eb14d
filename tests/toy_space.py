"""A search space of one's own, in one file: what docs/walks/space.md walks through."""

import dataclasses
import itertools
import random
from typing import Any

import flax.linen as nn

import unnas_jax as un
from unnas_jax.layers.blocks import ReluConvBN, Stem
from unnas_jax.spaces.graph import Graph


@dataclasses.dataclass(frozen=True)
class Kernels:
    """The cells: the kernel size of every layer."""

    sizes: tuple[int, ...]

    def as_dict(self):
        return {"sizes": list(self.sizes)}

    def graphs(self, softmax=None, operations=None):
        names = ["stem", *(f"layer {k}" for k in range(len(self.sizes)))]
        edges = [(f"conv_{size}x{size}", k, k + 1) for k, size in enumerate(self.sizes)]
        return [Graph("Chain", names, names, 1, edges, [None] * len(edges), choices=3)]


class Chain(nn.Module):
    """Stem, one convolution a size, head."""

    sizes: tuple[int, ...]
    width: int
    stem: str
    head: nn.Module
    dtype: Any

    @property
    def cells(self):
        return len(self.sizes)

    @nn.compact
    def __call__(self, inputs, train, drop_path=None):
        x, _ = Stem(self.stem, self.width, dtype=self.dtype, name="stem")(inputs, train)
        for k, size in enumerate(self.sizes):
            x = ReluConvBN(self.width, (size, size), dtype=self.dtype, name=f"layer_{k}")(x, train)
        return self.head(x, train), None


class Chains:
    """Texts such as `3-1-3`."""

    ANY = "3"

    def identity(self, cell):
        return "-".join(map(str, cell.sizes))

    def from_dict(self, value):
        return Kernels(tuple(value["sizes"]))

    def draw(self, section, seed):
        sizes = list(itertools.product((1, 3, 5), repeat=section.nodes))
        random.Random(seed).shuffle(sizes)
        return [Kernels(chosen) for chosen in sizes[: section.count]]

    def validate(self, section):
        self.resolve(section.genotype)

    def file_of(self, name):
        return None

    def load(self, path):
        raise un.UserError("chains are texts")

    def resolve(self, name):
        if not all(size in ("1", "3", "5") for size in name.split("-")):
            raise un.UserError(f"config.network.genotype={name!r}: give sizes, such as 3-1-3")
        return Kernels(tuple(int(size) for size in name.split("-")))

    def build(self, section, task, dtype):
        sizes = self.resolve(section.genotype).sizes
        return Chain(sizes, int(section.width), section.stem, task.head(dtype), dtype)

    def check_inputs(self, section, task, examples):
        """Any size will do."""


un.register_space("chains", Chains())
