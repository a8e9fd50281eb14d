"""Numbers that show a collapse and cost nothing: skips in a cell, the entropy of mixing weights."""

from collections.abc import Mapping, Sequence

import numpy as np


def skips(operations: Sequence[str]) -> int:
    """The skip connections among the operations of a cell."""
    return sum(operation == "skip_connect" for operation in operations)


def entropy(weights: np.ndarray) -> float:
    """The mean over edges of the entropy of the weights (E, O) of their operations, in nats.

    From log O, where no operation is preferred, to 0, where each edge has chosen.
    """
    shares = np.asarray(weights, np.float64)
    shares = shares / np.maximum(shares.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return float(-(shares * logs).sum(1).mean())


def of_weights(
    chosen: Mapping[str, Sequence[str]], mixing: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """The skips and the entropies, for the rows `method` of metrics.jsonl.

    Args:
      chosen: by kind of cell, the operations of the discrete cells. The skips are those of the
        first kind.
      mixing: by kind of cell, the weights (E, O).
    """
    first = min(chosen)
    entropies = {f"entropy_{kind}": entropy(weights) for kind, weights in mixing.items()}
    return {f"skips_{first}": float(skips(chosen[first])), **entropies}
