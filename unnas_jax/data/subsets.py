"""Subsets of a training split, as lists of names that can be published: one a line."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.data import order
from unnas_jax.data.records import Dataset, Records, describe

_SUBSET = 4  # The purpose of the draw; `order` lists the others.


@dataclasses.dataclass(frozen=True)
class SubsetRecords:
    """Some records of others, in their order there.

    Attributes:
      records: the others.
      positions: int (count,), rising.
    """

    records: Records
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, i: int, /) -> Mapping[str, Any]:
        return self.records[int(self.positions[i])]

    def names(self) -> Sequence[str]:
        """The names of the records."""
        names = _names(self.records)
        return [names[position] for position in self.positions]

    def describe(self, i: int) -> str:
        """Which of the others record `i` is."""
        return describe(self.records, int(self.positions[i]))


def _names(records: Records) -> Sequence[str]:
    known = getattr(records, "names", None)
    if known is None:
        raise UserError("config.dataset.subset: the examples of this dataset have no names")
    names: Sequence[str] = known()
    return names


def restrict(dataset: Dataset, subset: str) -> Dataset:
    """The dataset with no more of its train split than a list names; other splits are left.

    Args:
      dataset: the whole.
      subset: a file, or the name of one in the folder `subsets` beside the dataset.

    Raises:
      UserError: the list cannot be read, or names an example that is not there.
    """
    path = os.path.expanduser(subset)
    if not os.path.exists(path) and dataset.directory:
        path = os.path.join(dataset.directory, "subsets", subset)
    try:
        with open(path, encoding="utf-8") as file:
            wanted = {line.strip() for line in file if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"config.dataset.subset={subset!r}: cannot read {path} ({error}); write a list with "
            "unnas-jax prepare NAME --subset=SHARE"
        ) from error
    records = dataset.splits["train"]
    names = _names(records)
    positions = np.array([i for i, name in enumerate(names) if name in wanted], np.int64)
    if len(positions) < len(wanted) or not wanted:
        unknown = sorted(wanted - set(names))
        raise UserError(
            f"config.dataset.subset={subset!r}: "
            + (
                f"{len(unknown):,} of its {len(wanted):,} names are not in the train split of "
                f"{dataset.name!r}, the first is {unknown[0]!r}"
                if wanted
                else "names no example"
            )
            + "; use a list of this dataset"
        )
    splits = {**dataset.splits, "train": SubsetRecords(records, positions)}
    return dataclasses.replace(dataset, splits=splits, colourless=None)


def draw(dataset: Dataset, share: float, seed: int) -> list[str]:
    """The names of a random subset of the train split, sorted.

    The names are drawn by one permutation of all names in sorted order: the list depends on
    nothing but them, the share and the seed, and holds those of smaller shares.

    Raises:
      UserError: the share is none, or the dataset has no names.
    """
    if not 0 < share < 1:
        raise UserError(f"--subset={share}: must be between 0 and 1")
    names = sorted(_names(dataset.splits["train"]))
    count = round(share * len(names))
    if not count:
        raise UserError(f"--subset={share}: is no image of {len(names)}; use a larger share")
    chosen = order.permutation(len(names), seed, _SUBSET)[:count]
    return [names[k] for k in np.sort(chosen)]


def write(dataset: Dataset, share: float, seed: int) -> str:
    """Writes the names that `draw` gives to a file beside the dataset; returns its path."""
    names = draw(dataset, share, seed)
    folder = os.path.join(dataset.directory, "subsets")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"train-{share:g}-seed{seed}.txt")
    with files.replacing(path) as file:
        file.writelines(f"{name}\n" for name in names)
    return path
