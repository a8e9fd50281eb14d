"""The single-path supernet of the DARTS space: two operations for every node in a step."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.config.options import Config
from unnas_jax.config.sections import SupernetConfig
from unnas_jax.core.errors import UserError
from unnas_jax.layers.blocks import plan
from unnas_jax.spaces import vectors
from unnas_jax.spaces.darts import candidates, published, sampling
from unnas_jax.spaces.darts import genotype as genotype_lib
from unnas_jax.spaces.darts import supernet as supernet_lib
from unnas_jax.spaces.darts.candidates import KINDS, Candidates
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.darts.operations import BUILDERS, Identity, Pool
from unnas_jax.spaces.vectors import Part
from unnas_jax.tasks.base import Examples, Task

Path = dict[str, Any]
"""`normal` and `reduce`, float32 (edges, operations): 1 for what is computed, otherwise 0."""

_DRAWS_EACH = 1000  # Draws for one more cell before there count as no more.


def _given(path: Path) -> Path:
    return path


def validate(config: SupernetConfig) -> None:
    """Raises `UserError` for settings with which not one operation alone can be computed."""
    supernet_lib.validate(config)
    form, network = config.search.formulation, config.network
    if form not in ("auto", "per_edge"):
        raise UserError(
            f"config.search.formulation={form!r}: computes all operations; use 'auto' for a "
            "single path"
        )
    for key, plain in (("partial_channels", 1), ("auxiliary_skip", False)):
        value = getattr(network, key)
        if value != plain:
            raise UserError(
                f"config.network.{key}={value!r}: a single path has no such thing; use {plain!r}"
            )
    named = candidates.of_network(network)
    if any("noise" in names for kind in KINDS for names in named[kind]):
        raise UserError(
            "config.network.operations: 'noise' cannot be computed by itself; leave it out"
        )


def build(config: Config, task: Task) -> "Paths":
    """The supernet of a search's valid config with the head of a task."""
    whole = supernet_lib.build_supernet(config, task)
    return Paths(whole.clone(formulation="per_edge", one=True, mix=_given))


@dataclasses.dataclass(frozen=True)
class Paths:
    """See `unnas_jax.spaces.single_path.Paths`."""

    network: supernet_lib.Supernet

    @property
    def _operations(self) -> Candidates:
        return self.network.operations or candidates.everywhere(self.network.nodes)

    def draw(self, key: jax.Array) -> Path:
        """Two of the states before every node, through operations other than `none` (RLNAS)."""
        path = {}
        for kind, own in zip(KINDS, jax.random.split(key), strict=True):
            names = self._operations[kind]
            used = candidates.mask(names)
            allowed = np.array([[_is_one(row, k) for k in range(used.shape[1])] for row in names])
            of_edges, of_operations = jax.random.split(own)
            logits = jnp.where(allowed, 0.0, -jnp.inf)
            drawn = jax.random.categorical(of_operations, logits, axis=-1)
            chosen = jax.nn.one_hot(drawn, used.shape[1], dtype=jnp.float32)
            order = jax.random.uniform(of_edges, (len(names),))
            kept, first = [], 0
            for node in range(self.network.nodes):
                ranks = jnp.argsort(jnp.argsort(order[first : first + node + 2]))
                kept.append(ranks < 2)
                first += node + 2
            path[kind] = chosen * jnp.concatenate(kept)[:, None]
        return path

    def of(self, cell: Genotype) -> Path:
        """1 for the operations of a genotype; one with `none` is nothing."""
        path = {}
        for kind in KINDS:
            pairs, names = self._pairs(cell, kind), self._operations[kind]
            path[kind] = np.zeros(candidates.mask(names).shape, np.float32)
            for edge, operation in pairs.items():
                path[kind][edge, names[edge].index(operation)] = 1
        return path

    def _pairs(self, cell: Genotype, kind: str) -> dict[int, str]:
        """The operations of a genotype's cell other than `none`, by edge."""
        pairs, names = getattr(cell, kind), self._operations[kind]
        nodes = self.network.nodes
        if len(pairs) != 2 * nodes or getattr(cell, f"{kind}_concat") != tuple(range(2, nodes + 2)):
            raise UserError(
                f"genotype {cell}: the supernet's {kind} cells have {nodes} nodes, all of which "
                "are in the output"
            )
        found: dict[int, str] = {}
        for k, (operation, source) in enumerate(pairs):
            if operation == "none":
                continue
            edge = candidates.num_edges(k // 2) + source
            if edge in found:
                raise UserError(
                    f"genotype {cell}: node {k // 2} of the {kind} cell takes state {source} "
                    "twice; the supernet has one operation an edge"
                )
            if operation not in names[edge]:
                raise UserError(
                    f"genotype {cell}: {operation!r} is no operation of the {kind} cell's edge "
                    f"{edge} in the supernet, which has {', '.join(names[edge])}"
                )
            found[edge] = operation
        return found

    def init(self, key: jax.Array, inputs: jax.ShapeDtypeStruct) -> Mapping[str, Any]:
        """Fresh variables."""
        path = jax.tree.map(jnp.asarray, self.of(self.cells(1, 0)[0]))
        images = jnp.zeros_like(inputs)
        variables: Mapping[str, Any] = self.network.init(key, images, path, train=True)
        return variables

    def apply(
        self, variables: Mapping[str, Any], inputs: jax.Array, path: Path, *, train: bool
    ) -> tuple[Any, Any]:
        """Outputs and running statistics."""
        if not train:
            return self.network.apply(variables, inputs, path, train=False), variables[
                "batch_stats"
            ]
        outputs, updated = self.network.apply(
            variables, inputs, path, train=True, mutable=["batch_stats"]
        )
        return outputs, updated["batch_stats"]

    def cells(self, count: int, seed: int) -> Sequence[Genotype]:
        """Draws of `sampling.draw_found`, each once."""
        found: dict[Genotype, None] = {}
        number = 0
        while len(found) < count:
            if number >= _DRAWS_EACH * (len(found) + 1):
                raise UserError(
                    f"there are hardly {count} different cells of {self.network.nodes} nodes with "
                    f"these operations, but {len(found)} were found; ask for fewer"
                )
            rng = np.random.default_rng((seed, number))
            found[sampling.draw_found(rng, self.network.nodes, self._operations)] = None
            number += 1
        return list(found)

    def parts(self, cell: Genotype) -> Sequence[Part]:
        """Paths begin at the inputs and end at any node, all of which are in the output."""
        net = self.network
        parts = [Part(("stem",)), Part(("head",), bias=net.stem != "cifar")]
        ends = range(2, net.nodes + 2)
        places = candidates.edges(net.nodes)
        for place in plan(net.width, net.cells, net.stem, net.single_reduction):
            parts += [Part((place.name, name)) for name in ("preprocess0", "preprocess1")]
            chosen = self._pairs(cell, "reduce" if place.reduction else "normal")
            edges = {(places[k][0], places[k][1] + 2): name for k, name in chosen.items()}
            for (source, target), times in vectors.repeats(list(edges), (0, 1), ends).items():
                operation = edges[source, target]
                stride = 2 if place.reduction and source < 2 else 1
                module = BUILDERS[operation](
                    channels=place.channels, stride=stride, affine=net.affine, dtype=net.dtype
                )
                still = (0, 0.0)
                if isinstance(module, Pool):
                    still = vectors.pooling(place.channels)
                elif isinstance(module, Identity):
                    still = vectors.identity(place.channels)
                where = (place.name, f"edge_{source}_{target - 2}", "chosen", operation)
                parts.append(Part(where, times, *still))
        return parts

    def resolve(self, text: str) -> Genotype:
        """A text, a published name or a file."""
        return published.resolve(text)

    def document(self, cell: Genotype) -> dict[str, Any]:
        """With the operations of every edge."""
        operations = candidates.as_json(self._operations)
        return {**genotype_lib.bare_document(cell), "operations": operations}

    def check_inputs(self, examples: Examples) -> None:
        """Any size will do."""


def _is_one(names: Sequence[str], number: int) -> bool:
    """Whether an edge has an operation of this number that does something."""
    return number < len(names) and names[number] != "none"
