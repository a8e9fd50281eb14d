"""Cells of DARTS as graphs."""

from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.graph import Graph, Operations, Softmax

_TITLES = {"normal": "Normal cell", "reduce": "Reduction cell"}


def of_kind(
    kind: str,
    pairs: tuple[tuple[str, int], ...],
    concat: tuple[int, ...],
    softmax: Softmax | None,
    operations: Operations | None,
) -> Graph:
    """The graph of a kind of cell.

    Args:
      kind: of `candidates.KINDS`.
      pairs, concat: see `Genotype`.
      softmax, operations: see `graph.Drawable`.

    Raises:
      UserError: the weights are of another cell.
    """
    nodes = len(pairs) // 2
    for given, name in ((softmax, "alphas_softmax"), (operations, "operations")):
        if given and kind not in given:
            raise UserError(f"genotype: {name} of a search without a {kind} cell; leave them out")
    names = (operations or candidates.everywhere(nodes))[kind]
    return Graph(
        title=_TITLES[kind],
        states=("cₖ₋₂", "cₖ₋₁", *(f"node {node}" for node in range(nodes))),
        labels=("$c_{k-2}$", "$c_{k-1}$", *map(str, range(nodes))),
        inputs=2,
        edges=[(name, source, k // 2 + 2) for k, (name, source) in enumerate(pairs)],
        weights=candidates.chosen_weights(pairs, softmax[kind] if softmax else None, names),
        choices=max(map(len, names)),
        concat=concat,
    )
