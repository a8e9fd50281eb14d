"""The networks in which genotypes are compared, and the widths that keep the paper's limits."""

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import flax.linen as nn

from unnas_jax.core.errors import UserError
from unnas_jax.layers.counting import Counts, answer, count
from unnas_jax.layers.heads import AsppHead, ImageHead
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.darts.network import Network


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A kind of discrete network in which genotypes are compared.

    Attributes:
      title: in words.
      cells, stem, head, auxiliary_classes, single_reduction: of the `Network`.
      size: height, width and channels of what it is evaluated on.
      fitted: the sum that a fitted width keeps in `limits`, a name of `Counts.totals`.
      limits: the smallest and the largest value allowed.
    """

    title: str
    cells: int
    stem: str
    head: nn.Module
    size: tuple[int, int, int]
    auxiliary_classes: int = 0
    single_reduction: bool = False
    fitted: str = "multiply_adds"
    limits: tuple[int, int] = (0, sys.maxsize)

    def count(self, genotype: Genotype, width: int) -> Counts:
        """The counts of a genotype's network of this kind."""
        network = Network(
            genotype=genotype,
            width=width,
            cells=self.cells,
            stem=self.stem,
            head=self.head,
            auxiliary_classes=self.auxiliary_classes,
            single_reduction=self.single_reduction,
        )
        return count(network, answer(network, self.size), train=False)


IMAGENET = Evaluation(
    "ImageNet-1K classification",
    cells=14,
    stem="imagenet",
    head=ImageHead(1000),
    size=(224, 224, 3),
    auxiliary_classes=1000,
    limits=(500_000_000, 600_000_000),
)
CITYSCAPES = Evaluation(
    "Cityscapes segmentation",
    cells=12,
    stem="imagenet",
    head=AsppHead(19, 256, (6, 12, 18)),
    size=(1025, 2049, 3),
    single_reduction=True,
    fitted="parameters",
    limits=(9_500_000, 10_500_000),
)
CIFAR10 = Evaluation(
    "CIFAR-10 classification",
    cells=20,
    stem="cifar",
    head=ImageHead(10),
    size=(32, 32, 3),
    auxiliary_classes=10,
)


_TRACED = (16, 32, 48)


def _quadratic(values: Mapping[int, int]) -> Callable[[int], int]:
    """The polynomial through the values at three places (Lagrange), for where it is an integer."""

    def at(x: int) -> int:
        terms = (
            value
            * math.prod(Fraction(x - other, place - other) for other in values if other != place)
            for place, value in values.items()
        )
        return int(sum(terms))

    return at


def _around(value: Callable[[int], int], limit: int) -> tuple[int, int]:
    """The largest even number at which a growing function keeps a limit (or 0), and the next."""
    above = 2
    while value(above) <= limit:
        above *= 2
    below = above // 2 if above > 2 else 0
    while above - below > 2:
        middle = (below + above) // 4 * 2
        below, above = (middle, above) if value(middle) <= limit else (below, middle)
    return below, above


def fit_width(genotype: Genotype, evaluation: Evaluation = IMAGENET) -> int:
    """The largest even width at which a genotype's network keeps the evaluation's limits.

    The paper's own widths keep them too, but are not always the largest (and its count of
    multiply-adds is 1 to 3% above the true one).

    Raises:
      UserError: no even width does.
    """
    low, high = evaluation.limits

    def counted(width: int) -> int:
        return int(getattr(evaluation.count(genotype, width), evaluation.fitted))

    # A layer's counts are products of two numbers of channels, each of which is a multiple of the
    # width or constant: three traced widths tell all others.
    value = _quadratic({width: counted(width) for width in _TRACED})
    below, above = _around(value, high)
    if below >= 2 and counted(below) != value(below):
        value = counted
        below, above = _around(value, high)
    if below < 2 or value(below) < low:
        name = evaluation.fitted.replace("_", "-")
        found = [f"{value(width) / 1e6:.4g} at {width}" for width in (below, above) if width > 1]
        raise UserError(
            f"genotype: no even width has {low / 1e6:g} to {high / 1e6:g} million {name} "
            f"({evaluation.title}): {', '.join(found)}; give a width"
        )
    return below


def evaluation_sizes(genotype: Genotype) -> list[dict[str, Any]]:
    """The counts of a genotype's networks for the ImageNet and CIFAR-10 evaluations.

    The width is the fitted one for ImageNet (48, that of most published cells, if none fits) and
    DARTS' own for CIFAR-10.
    """
    try:
        imagenet = fit_width(genotype, IMAGENET)
    except UserError:
        imagenet = 48
    return [
        {
            "name": evaluation.title,
            "cells": evaluation.cells,
            "width": width,
            "input_size": evaluation.size[0],
            **evaluation.count(genotype, width).totals(),
        }
        for evaluation, width in ((IMAGENET, imagenet), (CIFAR10, 36))
    ]
