"""Statistics of batch norms over several batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def pooled(statistics: Sequence[Any], examples: Sequence[int]) -> Any:
    """The statistics of all batches, from those of each (Wu and Johnson, 2021).

    A mean is the mean of the batches' means. A variance is E[v + m^2] - E[m]^2 of the batches'
    variances v and means m: the distances between batches are part of it.

    Args:
      statistics: a tree of arrays for every batch; batch norms are dicts of `mean` and `var`.
      examples: the number of examples of every batch, its weight in the means.

    Returns:
      A tree like the others, of NumPy arrays.
    """

    def mean(values: Sequence[Any]) -> Any:
        return np.average(np.asarray(values, np.float64), axis=0, weights=examples)

    def of_all(*values: Any) -> Any:
        first = values[0]
        if not isinstance(first, Mapping):
            return mean(values).astype(np.asarray(first).dtype)
        found = {key: of_all(*(value[key] for value in values)) for key in first}
        if found.keys() == {"mean", "var"}:
            means, variances = (
                [np.asarray(value[key], np.float64) for value in values] for key in ("mean", "var")
            )
            centre = mean(means)
            spread = mean([v + (m - centre) ** 2 for v, m in zip(variances, means, strict=True)])
            found["var"] = spread.astype(np.asarray(first["var"]).dtype)
        return found

    return of_all(*statistics)
