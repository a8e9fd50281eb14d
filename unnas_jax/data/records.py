"""What a dataset is to the rest of the program: records by number, facts, and a fingerprint."""

import dataclasses
import hashlib
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from unnas_jax.core.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Records(Protocol):
    """The examples of a split, still encoded, by number.

    Records are pickled into the processes that decode them: they open files only when read. They
    may have a method `describe(i) -> str` that names record `i` in error messages, and `names() ->
    Sequence[str]`, a name for every record, by which subset lists name them. Where that may take
    long they have `names_digest() -> str` besides, '' if it is not known.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Mapping[str, Any]:
        """{'image': the bytes of an encoded image, 'label': int or a `crops.LabelMap`}."""
        ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """An image dataset.

    Attributes:
      name: for messages.
      splits: 'train', and 'validation' or 'test' where there is one.
      num_classes: 0 if there are no labels (they are then 0 in every record).
      class_names: a name for every label.
      mean, std: of the RGB channels in [0, 1], for the normalisation on the device.
      apply_exif: whether images are turned upright as their EXIF orientation says.
      label_maps: whether every pixel has a label; the records' labels are then `crops.LabelMap`.
      colors: RGB of every class, where label maps have customary ones.
      directory: of the prepared files, '' where there is none; subset lists lie below it.
      colourless: how many training images have no colour; None where nobody has counted.
      why_unlabelled: why the examples have no labels, where the user can change that.
    """

    name: str
    splits: Mapping[str, Records]
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    apply_exif: bool = False
    label_maps: bool = False
    colors: tuple[tuple[int, int, int], ...] = ()
    directory: str = ""
    colourless: int | None = None
    why_unlabelled: str = ""


def describe(records: Records, i: int) -> str:
    """Record `i` in words: its number and, if the records know it, its place."""
    known = getattr(records, "describe", None)
    return f"record {i}" if known is None else f"record {i} ({known(i)})"


def digest_of_names(names: str) -> str:
    """A digest of names, one a line."""
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()


def _fingerprint(records: Records) -> dict[str, Any]:
    own, names = getattr(records, "names_digest", None), getattr(records, "names", None)
    digest = ""
    if own is not None:
        digest = own()
    elif names is not None:
        digest = digest_of_names("".join(f"{name}\n" for name in names()))
    return {"count": len(records), "names": digest}


def fingerprint(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """The number of records of every split and a digest of their names, '' if they have none.

    A run keeps it with its position: by it the same numbers mean the same records.
    """
    return {split: _fingerprint(records) for split, records in sorted(dataset.splits.items())}


def check_same(
    workdir: str,
    before: Mapping[str, Any] | None,
    now: Mapping[str, Any],
    splits: Collection[str],
) -> None:
    """Raises `UserError` if splits are not those with which the run in a workdir began.

    Args:
      workdir: its name.
      before: the fingerprint that the run kept; None if it kept none.
      now: the dataset's.
      splits: that the run reads.
    """
    if before is None:
        return
    for split in sorted(splits):
        old, new = (found.get(split, {"count": 0, "names": ""}) for found in (before, now))
        known = old["names"] and new["names"]
        if old["count"] == new["count"] and not (known and old["names"] != new["names"]):
            continue
        numbers = [
            f"{which['count']:,} ({which['names'][:12] or 'without names'})" for which in (old, new)
        ]
        raise UserError(
            f"workdir {workdir}: the {split} images are not those that the run began with: "
            f"{numbers[0]} then, {numbers[1]} now (number and digest of the names); give it the "
            "same images, or give another --workdir"
        )
