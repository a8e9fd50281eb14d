"""The DARTS space as a `unnas_jax.spaces.mixed.Mixed`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unnas_jax.config.options import Config
from unnas_jax.spaces.darts import candidates, supernet
from unnas_jax.spaces.darts import genotype as genotype_lib
from unnas_jax.spaces.darts.candidates import Candidates
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.tasks.base import Examples, Task

LABELS: Mapping[str, str] = {"normal": "normal cell", "reduce": "reduction cell"}
INPUTS: int | None = 2

operations = candidates.of_network
document = genotype_lib.document_of


def edges(operations: Candidates) -> Sequence[tuple[int, int]]:
    """Those of as many nodes as have so many edges."""
    return candidates.edges(candidates.nodes_of(len(operations["normal"])))


def validate(config: Config) -> None:
    """Refuses unknown operations, and a formulation that does not know them."""
    supernet.validate(config)


def build(config: Config, task: Task) -> supernet.Supernet:
    """The supernet of a valid config with the head of a task."""
    return supernet.build_supernet(config, task)


def check_inputs(examples: Examples) -> None:
    """Any size will do."""
    del examples


def cells(
    mixing: Mapping[str, np.ndarray], operations: Candidates, threshold: float = 0.0
) -> Genotype:
    """The two strongest edges of every node."""
    return genotype_lib.strongest_above(mixing, threshold, operations)


def chosen(cells: Any) -> dict[str, list[tuple[str, int, int]]]:
    """Two edges of every node."""
    return {
        kind: [(name, source, k // 2) for k, (name, source) in enumerate(getattr(cells, kind))]
        for kind in candidates.KINDS
    }
