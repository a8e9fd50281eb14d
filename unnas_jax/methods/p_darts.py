"""P-DARTS (Chen et al., 2019): three stages, ever deeper supernets, fewer operations an edge.

Skip connections are held back: dropout on them in the later stages, and a limit in the final cell.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.config.sections import MethodConfig
from unnas_jax.core.errors import UserError
from unnas_jax.methods.base import Alphas, SearchState, Stage
from unnas_jax.methods.darts import Darts
from unnas_jax.spaces import mixing
from unnas_jax.spaces.darts import candidates, supernet
from unnas_jax.spaces.darts.candidates import KINDS, Candidates
from unnas_jax.spaces.darts.genotype import Genotype, Pairs, best_operations

STAGES = 3


def kept_operations(weights: Sequence[float], names: Sequence[str], count: int) -> list[str]:
    """The names of the `count` largest weights, in their order; of equals the first one goes."""
    order = sorted(range(len(names)), key=lambda k: (weights[k], k))
    return [names[k] for k in sorted(order[max(len(names) - count, 0) :])]


def scaled(operations: int, least: int) -> tuple[int, int] | None:
    """What to keep of so many operations, in the published proportion: 5 and then 3 of 8.

    Args:
      operations: of an edge.
      least: what the second stage must leave.

    Returns:
      the value of `kept`; None if there are too few operations to drop some twice.
    """
    second = max(least, round(operations * 3 / 8))
    first = max(second + 1, round(operations * 5 / 8))
    return (first, second) if first < operations else None


def skip_dropout(rate: float, epoch: Any, epochs: int, start: float) -> Any:
    """The probability in an epoch, counted from 0: falling, and anew once the alphas move.

    It is rate * (epochs - 1 - epoch) / epochs before epoch `start`, and from there on
    rate * exp(-0.2 (epoch - start)).
    """
    before = rate * (epochs - 1 - epoch) / epochs
    return jnp.where(epoch < start, before, rate * jnp.exp(-0.2 * (epoch - start)))


def final_cell(weights: np.ndarray, operations: Sequence[Sequence[str]], nodes: int) -> Pairs:
    """The pairs of a cell: the best two edges of a node, of equals the later, listed by edge."""
    pairs: list[tuple[str, int]] = []
    for best in best_operations(weights, operations, nodes):
        strongest = sorted(best, key=lambda found: (found[0], found[2]))[-2:]
        pairs += [(name, source) for _, name, source in sorted(strongest, key=lambda f: f[2])]
    return tuple(pairs)


def limited(
    weights: np.ndarray, operations: Sequence[Sequence[str]], nodes: int, most: int
) -> Pairs:
    """The `final_cell` with at most so many skip connections.

    While there are more, the weight of the weakest one becomes 0, and the cell is chosen again.
    """
    weights = np.array(weights, np.float64)
    numbers = {edge: k for k, edge in enumerate(candidates.edges(nodes))}
    while True:
        pairs = final_cell(weights, operations, nodes)
        skips = []
        for k, (name, source) in enumerate(pairs):
            if name == "skip_connect":
                edge = numbers[source, k // 2]
                skips.append((edge, operations[edge].index(name)))
        # A weight of 0 stays only where there is nothing else.
        zeroed = [place for place in skips if weights[place] > 0]
        if len(skips) <= most or not zeroed:
            return pairs
        weights[min(zeroed, key=lambda place: (weights[place], place))] = 0


class PDarts(Darts):
    """P-DARTS; config.train.epochs is the sum of three stages of equal length.

    config.search.arch_start_epoch counts in each of them. config.network.cells is the depth of the
    first stage's supernet, and `setting.carried` what is left of every edge's operations.
    """

    name = "p_darts"

    @classmethod
    def spaces(cls) -> Collection[str]:
        """That of DARTS: elsewhere there are too few operations to drop some of them twice."""
        return ("darts",)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """By stage: cells more than in the first, operations left after it, dropout on skips."""
        return {
            "cells_added": (0, 6, 12),
            "kept": (5, 3),  # Of eight; see `scaled`.
            "skip_dropout": (0.0, 0.4, 0.7),
            "skip_limit": 2,  # Of the final normal cell.
        }

    @classmethod
    def validate(cls, config: MethodConfig) -> None:
        """Checks the stages, besides what `Darts` does."""
        options, epochs = cls.completed(config.method), config.train.epochs
        for key, default in cls.defaults().items():
            if not isinstance(default, tuple):
                continue
            value, types = options[key], {type(default[0]), int}
            if len(value) != len(default) or any(type(each) not in types for each in value):
                kind = "numbers" if float in types else "integers"
                raise UserError(f"config.method.{key}={value!r}: give {len(default)} {kind}")
        if epochs % STAGES:
            raise UserError(
                f"config.train.epochs={epochs}: is shared by {STAGES} stages; use a multiple"
            )
        of_stage = dataclasses.replace(config.train, epochs=epochs // STAGES)
        super().validate(dataclasses.replace(config, train=of_stage))
        kept = options["kept"]
        if kept[0] <= kept[1] or kept[1] < 1:
            raise UserError(
                f"config.method.kept={kept!r}: must fall from stage to stage and leave an operation"
            )
        operations = candidates.of_network(config.network)
        least = 1 + any("none" in names for kind in KINDS for names in operations[kind])
        if kept[1] < least:
            raise UserError(
                f"config.method.kept={kept!r}: may leave an edge 'none' alone, of which no cell "
                "can come; keep at least 2, or leave 'none' out of config.network.operations"
            )
        most = max(len(names) for kind in KINDS for names in operations[kind])
        if kept[0] >= most:
            few = scaled(most, least)
            remedy = f"set config.method.kept={few}" if few else "use another method"
            raise UserError(
                f"config.method.kept={kept!r}: the first stage would drop nothing, because no edge "
                f"has more than {most} operations; {remedy}"
            )
        if any(not 0 <= rate < 1 for rate in options["skip_dropout"]):
            raise UserError(
                f"config.method.skip_dropout={options['skip_dropout']!r}: must be in [0, 1)"
            )
        if any(cells < 0 for cells in options["cells_added"]) or options["skip_limit"] < 0:
            raise UserError("config.method: cells_added and skip_limit must be at least 0")
        form = config.search.formulation
        if form not in ("auto", "per_edge"):
            raise UserError(
                f"config.search.formulation={form!r}: knows only the eight operations of DARTS, "
                "which later stages do not have; use 'auto' or 'per_edge'"
            )
        if options["threshold"]:
            raise UserError(
                f"config.method.threshold={options['threshold']!r}: P-DARTS chooses cells by its "
                "own rule; use 0"
            )

    @classmethod
    def stages(cls, config: MethodConfig, steps_per_epoch: int) -> Sequence[Stage]:
        """Three of equal length."""
        steps = config.train.epochs // STAGES * steps_per_epoch
        return [Stage(f"stage {k + 1}", steps) for k in range(STAGES)]

    @property
    def epochs(self) -> int:
        """Those of a stage."""
        return self.config.train.epochs // STAGES

    # The stage's supernet, which has the operations that are left.

    @property
    def left(self) -> Candidates:
        """The operations of the stage."""
        if self.setting.carried is None:
            return self.operations()
        return candidates.parse(self.setting.carried, self.config.network.nodes)

    @property
    def rate(self) -> float:
        """The stage's dropout on skips."""
        return float(self.options["skip_dropout"][self.setting.stage])

    def build(self) -> supernet.Supernet:
        """Deeper than the stage before's."""
        network, search = self.config.network, self.config.search
        network = dataclasses.replace(
            network,
            cells=network.cells + self.options["cells_added"][self.setting.stage],
            operations=candidates.as_json(self.left),
        )
        if self.rate:
            search = dataclasses.replace(search, formulation="per_edge")
        stage = dataclasses.replace(self.config, network=network, search=search)
        own = supernet.build_supernet(stage, self.task)
        return own.clone(mix=lambda alphas: self.taken(self.mix(alphas)))

    def initial_alphas(self, key: jax.Array) -> dict[str, jax.Array]:
        """As many as operations are left."""
        nodes, scale = self.config.network.nodes, self.config.alphas.init_scale
        return supernet.init_alphas(key, nodes, scale, self.left)

    def _columns(self, kind: str) -> np.ndarray:
        """Where the stage's operations are among all, (E, those of the stage)."""
        whole, left = self.operations()[kind], self.left[kind]
        columns = np.zeros((len(left), max(map(len, left))), np.int32)
        for edge, (all_names, names) in enumerate(zip(whole, left, strict=True)):
            columns[edge, : len(names)] = [all_names.index(name) for name in names]
        return columns

    def mix(self, alphas: Alphas) -> dict[str, jax.Array]:
        """As DARTS among the operations that are left; the others have weight 0."""
        form = mixing.sigmoid if self.options["mixing"] == "sigmoid" else mixing.softmax
        shares, result = form(alphas, self.left), {}
        for kind in KINDS:
            columns = self._columns(kind)
            shape = candidates.mask(self.operations()[kind]).shape
            rows = np.arange(len(columns))[:, None]
            zeros = jnp.zeros(shape, shares[kind].dtype)
            result[kind] = zeros.at[rows, columns].add(shares[kind])
        return result

    def taken(self, weights: Mapping[str, jax.Array]) -> Mapping[str, jax.Array]:
        """Without the operations that are gone."""
        own = {
            kind: jnp.take_along_axis(weights[kind], self._columns(kind), 1)
            * candidates.mask(self.left[kind])
            for kind in KINDS
        }
        return {**weights, **own}

    def skips(self, step: jax.Array | int) -> dict[str, jax.Array]:
        """With dropout, in a stage that has it."""
        if not self.rate:
            return super().skips(step)
        start = self.config.search.arch_start_epoch
        rate = skip_dropout(self.rate, self.epoch(step), self.epochs, start)
        return {**super().skips(step), "dropout": jnp.asarray(rate, jnp.float32)}

    # What a stage ends in.

    def finish(self, state: SearchState) -> Any:
        """The operations of every edge that have the largest weights."""
        weights, count = self.mixing(state.alphas), self.options["kept"][self.setting.stage]
        whole, left = self.operations(), self.left

        def of_edge(kind: str, edge: int) -> list[str]:
            names = left[kind][edge]
            own = [float(weights[kind][edge, whole[kind][edge].index(name)]) for name in names]
            return kept_operations(own, names, count)

        return {kind: [of_edge(kind, k) for k in range(len(left[kind]))] for kind in KINDS}

    @classmethod
    def cells_of(cls, config: MethodConfig, mixing: Mapping[str, np.ndarray]) -> Genotype:
        """The final cells, the normal one with the limit of skip connections."""
        weights, names = mixing, candidates.of_network(config.network)
        nodes, most = config.network.nodes, cls.completed(config.method)["skip_limit"]
        concat = tuple(range(2, nodes + 2))
        normal = limited(weights["normal"], names["normal"], nodes, most)
        reduce = final_cell(weights["reduce"], names["reduce"], nodes)
        return Genotype(normal, concat, reduce, concat)
