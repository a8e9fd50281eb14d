"""Warnings about finished results, for log, files, report and status."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts import mixed as darts
from unnas_jax.spaces.darts.candidates import Candidates
from unnas_jax.spaces.mixed import Mixed, names
from unnas_jax.spaces.registry import Cells

_UNDECIDED = 0.005
"""How far a softmax weight may be from that of an equal choice and still say nothing: alphas start
with a deviation of 1e-3, which moves weights by up to 5e-4."""


AGAINST_SKIPS = (
    "stop earlier (config.method.stop), lower config.alphas.learning_rate, or use a remedy "
    "(config.method.perturbation='random', config.network.auxiliary_skip=True, "
    "config.method.drop_path=0.2)"
)
"""What to do when a search drifts to skip connections: the end of a sentence."""


def chance(metrics: Mapping[str, Any], num_classes: int) -> float:
    """The accuracy of one answer to everything: the share of the most frequent class.

    Args:
      metrics: of an evaluation; its `majority` is the share of the most frequent class.
      num_classes: for metrics without `majority`; 0 where answers are no classes.
    """
    return float(metrics.get("majority", 1 / num_classes if num_classes else 0.0))


def of_accuracy(accuracy: float, guess: float, images: int) -> list[str]:
    """One line if an accuracy is that of guessing, within two standard errors.

    Args:
      accuracy, guess: shares of held-out images (or pixels).
      images: how many; those of an image's pixels or turns are not independent.
    """
    error = math.sqrt(max(guess * (1 - guess), 0.0) / max(images, 1))
    if accuracy > guess + 2 * error:
        return []
    return [
        f"the accuracy on held-out images, {100 * accuracy:.3g}%, is that of guessing "
        f"({100 * guess:.3g}%): nothing was learned that carries over"
    ]


def of_alphas(
    mixing: Mapping[str, np.ndarray],
    cells: Cells,
    start: float,
    operations: Candidates | None = None,
    space: Mixed = darts,
) -> list[str]:
    """Warnings about alphas: not trained yet, undecided, or collapsed to skip connections.

    Args:
      mixing: the history of the operations' weights by kind of cell, (T, edges, operations).
      cells: the discrete cells of the last ones.
      start: the epoch from which they learn.
      operations: of every edge; None: those of DARTS.
      space: of the cells.
    """
    chosen = names(space, cells)
    if operations is None:
        operations = candidates.everywhere(len(chosen["normal"]) // 2)
    # The weight of each operation on every edge if none is preferred.
    equal = {kind: candidates.equal_weights(edges) for kind, edges in operations.items()}
    undecided = all(
        float(np.abs(_shares(w[-1]) - equal[kind]).max()) < _UNDECIDED for kind, w in mixing.items()
    )
    moved = any(not np.array_equal(w[0], w[-1]) for w in mixing.values())
    words = []
    if undecided and not moved:
        words.append(
            "no alpha has moved: they learn from epoch "
            f"{start:g} on (config.search.arch_start_epoch), and the cells are drawn by chance"
        )
    elif undecided:
        words.append(
            f"the alphas are undecided: every operation weighs {_range(equal)} within "
            f"{_UNDECIDED:g}, "
            "so that noise chose the cells; train longer, or raise config.alphas.learning_rate"
        )
    for kind, own in chosen.items():
        if set(own) == {"skip_connect"}:
            words.append(
                f"all edges of the {space.LABELS[kind]} are skip connections: the search "
                f"collapsed; {AGAINST_SKIPS}"
            )
    first = min(chosen)
    skips, edges = chosen[first].count("skip_connect"), len(chosen[first])
    if edges / 2 < skips < edges:
        words.append(
            f"{skips} of the {edges} edges of the {space.LABELS[first]} are skip connections, "
            f"more than half: the search has collapsed or is about to; {AGAINST_SKIPS}"
        )
    return words


def _shares(weights: np.ndarray) -> np.ndarray:
    """Weights of operations (edges, O) as shares of the sums of their edges."""
    shares: np.ndarray = weights / np.maximum(weights.sum(1, keepdims=True), 1e-12)
    return shares


def _range(weights: Mapping[str, np.ndarray]) -> str:
    values = np.concatenate([value[value > 0] for value in weights.values()])
    low, high = float(values.min()), float(values.max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}, as one of its edge's,"


def of_training(values: Sequence[Mapping[str, float]], num_classes: int, images: int) -> list[str]:
    """Warnings about an evaluation: the metrics of each seed, and the number of images."""
    guess = float(np.mean([chance(value, num_classes) for value in values]))
    return of_accuracy(float(np.mean([value["accuracy"] for value in values])), guess, images)
