"""Comparisons of a task's accuracies with those with labels, architecture by architecture."""

import dataclasses

import numpy as np

from unnas_jax.analysis.accuracies import Table
from unnas_jax.analysis.sources import EXPLAINED, RATES
from unnas_jax.analysis.statistics import (
    Correlation,
    RandomExperiments,
    random_experiments,
    spearman,
)
from unnas_jax.analysis.trend import Line, huber_line

SUPERVISED = ("classification", "segmentation")
"""The tasks with labels, against which all others are compared."""

LEAST = 3
"""The least number of architectures for a correlation."""

_TASKS = {
    "rotation": ("Rotation", "#0072b2", "-", "o"),
    "colorization": ("Colorization", "#d55e00", "--", "s"),
    "jigsaw": ("Jigsaw", "#009e73", "-.", "^"),
    "classification": ("Supervised", "#222222", ":", "D"),
    "segmentation": ("Segmentation", "#56606b", ":", "P"),
    "masked": ("Masked", "#6b8e23", "-", "P"),
    "contrastive": ("Contrastive", "#4b0082", "--", "X"),
    "regression": ("Regression", "#c71585", "-.", "*"),
    "random_labels": ("Random labels", "#8b4513", ":", "d"),
    "shared_weights": ("Shared weights", "#2f6f9f", "-", "8"),
    "angle": ("Angle", "#b22222", "--", "H"),
    "gennas": ("GenNAS regression", "#cc79a7", "-", "p"),
    "synflow": ("SynFlow", "#56b4e9", "--", "v"),
    "naswot": ("NASWOT", "#7a5195", "-.", "<"),
    "jacob_cov": ("Jacobian covariance", "#b8860b", "-", ">"),
    "zen": ("Zen score", "#44aa99", "--", "h"),
    "parameters": ("Parameters", "#999999", "-", "x"),
    "multiply_adds": ("Multiply-adds", "#777777", "--", "+"),
}
_OTHER = "#8a5a00"
_SPACES = {
    "darts": "DARTS",
    "nasbench101": "NAS-Bench-101",
    "nasbench201": "NAS-Bench-201",
    "": "all architectures",
}
_DATASETS = {"cifar10": "CIFAR-10", "imagenet2012": "ImageNet", "imagenet22k": "ImageNet-22K"}


def dataset_name(name: str) -> str:
    """The name of a dataset in pictures."""
    return _DATASETS.get(name, name)


def space_name(name: str) -> str:
    """The name of a space in pictures."""
    return _SPACES.get(name, name)


def style_of(name: str) -> tuple[str, str, str, str]:
    """The label, colour, line style and marker of a task."""
    return _TASKS.get(name, (name, _OTHER, "-", "v"))


def measure_of(name: str) -> str:
    """What a task's or a score's results are, for an axis."""
    label = style_of(name)[0]
    if name in EXPLAINED:
        return f"{label}, explained share, %"
    return f"{label} accuracy, %" if name in RATES else label


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A pretext accuracy against the supervised one, over the architectures that have both.

    Attributes:
      space: the search space.
      source, task: the dataset and the task of the pretext accuracy.
      target: the dataset of the supervised accuracy.
      labels: the supervised task.
      unmatched: architectures with only a pretext accuracy, and with only a supervised one.
      names: the architectures, in order.
      pretext, supervised: the accuracies of each.
      correlation, line, experiments: the statistics between them.
    """

    space: str
    source: str
    task: str
    target: str
    labels: str
    unmatched: tuple[int, int]
    names: tuple[str, ...]
    pretext: np.ndarray
    supervised: np.ndarray
    correlation: Correlation
    line: Line | None
    experiments: RandomExperiments

    @property
    def same(self) -> bool:
        """Whether it compares a measurement with itself."""
        return (self.task, self.source) == (self.labels, self.target)

    @property
    def shown(self) -> np.ndarray:
        """The pretext accuracies as they are drawn; of scores outliers at the ends of the rest."""
        return self.pretext if self.task in RATES else within_reach(self.pretext)

    @property
    def factor(self) -> float:
        """From the pretext accuracies to what is shown: percents, but for scores."""
        return 100.0 if self.task in RATES else 1.0

    @property
    def measure(self) -> str:
        """What the pretext accuracies are, for an axis."""
        return measure_of(self.task)

    def __str__(self) -> str:
        """A line of a table: the accuracies, the number of architectures, the correlation."""
        lost = ""
        if any(self.unmatched):
            lost = "  (left out: {:,} without labels' result, {:,} without the task's)".format(
                *self.unmatched
            )
        return (
            f"{space_name(self.space):14} {self.task:14} {self.source} -> {target_name(self):12} "
            f"{self.correlation.count:4} architectures  {rho_text(self.correlation)}{lost}"
        )


def target_name(comparison: Comparison) -> str:
    """The dataset of the labels, and the task with them if it is not classification."""
    plain = comparison.labels == SUPERVISED[0]
    return comparison.target if plain else f"{comparison.target} {comparison.labels}"


def order(task: str) -> tuple[int, str]:
    """A key that sorts tasks as pictures show them."""
    known = list(_TASKS)
    return (known.index(task) if task in known else len(known), task)


def within_reach(values: np.ndarray) -> np.ndarray:
    """Values, clipped at three times the distance of the quartiles beyond the quartiles.

    The score of a network that passes nothing on is far from all others, and would hide them.
    """
    low, high = np.percentile(values, (25, 75))
    reach = 3 * (high - low)
    return values if reach == 0 else np.clip(values, low - reach, high + reach)


def compare(table: Table, *, seed: int = 0) -> list[Comparison]:
    """Every task of every dataset against the labels of every dataset, space by space.

    Args:
      table: the accuracies.
      seed: of the bootstrap and of the random experiments.
    """
    result = []
    keys = sorted(table, key=lambda key: (key[0], key[1], order(key[2])))
    for space, target, supervised in keys:
        if supervised not in SUPERVISED:
            continue
        labels = table[space, target, supervised]
        for _, source, task in (key for key in keys if key[0] == space):
            values = table[space, source, task]
            names = tuple(sorted(values.keys() & labels.keys()))
            if len(names) < LEAST:
                continue
            x = np.array([labels[name] for name in names])
            y = np.array([values[name] for name in names])
            result.append(
                Comparison(
                    space,
                    source,
                    task,
                    target,
                    supervised,
                    (len(values) - len(names), len(labels) - len(names)),
                    names,
                    y,
                    x,
                    spearman(x, y, seed=seed),
                    huber_line(x, y if task in RATES else within_reach(y)),
                    random_experiments(y, x, seed=seed),
                )
            )
    return result


def rho_text(correlation: Correlation) -> str:
    """A correlation and its interval."""
    if np.isnan(correlation.rho):
        return "ρ undefined"
    text = f"ρ = {correlation.rho:.2f}"
    if not np.isnan(correlation.low):
        text += f"  [{correlation.low:.2f}, {correlation.high:.2f}]"
    return text.replace("-", "−")
