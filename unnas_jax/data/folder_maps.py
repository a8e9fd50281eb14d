"""The dataset `folder_maps`: a user's own images with a label map each, for segmentation."""

import collections
import concurrent.futures
import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unnas_jax.config.sections import DatasetSection
from unnas_jax.core import reading
from unnas_jax.core.errors import UserError
from unnas_jax.data import check, crops, decoding, folder, scan, workers
from unnas_jax.data.records import Dataset

_LOG = logging.getLogger("unnas_jax")

_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_IMAGES, _LABELS = "images", "labels"
_NAMES = "classes.txt"


@dataclasses.dataclass(frozen=True)
class MapRecords:
    """Image files and their label maps.

    Attributes:
      root: the folder.
      paths: of the images, relative to it.
      maps: of the label maps.
      table: see `crops.LabelMap`.
    """

    root: str
    paths: tuple[str, ...]
    maps: tuple[str, ...]
    table: bytes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int, /) -> Mapping[str, Any]:
        parts = []
        for path in (self.paths[i], self.maps[i]):
            try:
                with open(os.path.join(self.root, path), "rb") as file:
                    parts.append(file.read())
            except OSError as error:
                raise UserError(
                    f"dataset: cannot read {os.path.join(self.root, path)!r} ({error.strerror}); "
                    "it was there when the run began"
                ) from error
        return {"image": parts[0], "label": crops.LabelMap(parts[1], self.table)}

    def names(self) -> Sequence[str]:
        """The paths of the images, by which subset lists name examples."""
        return self.paths

    def describe(self, i: int) -> str:
        """The path of record `i`."""
        return repr(os.path.join(self.root, self.paths[i]))


def open_dataset(section: DatasetSection) -> Dataset:
    """Images and label maps: `images/A.jpg` and `labels/A.png`, or so in train/, val/ and test/.

    A label map is a PNG of 8 bits, gray or with a palette, of the image's size; its numbers are the
    classes from 0 on, and 255 and `ignore_label` those of pixels that do not count. A file
    classes.txt in the folder, a name a line, names the classes. A warning tells which files are
    left out, and why.

    Args:
      section: a config's `dataset`: of its fields `name`, `path`, `max_pixels`, `ignore_label`.

    Raises:
      UserError: there is no such folder, a split has no image with a label map, or a number is of
        no class.
    """
    key = f"config.dataset.path={section.path!r}"
    root = folder.root_of(section.path)
    ignored = {crops.IGNORE, section.ignore_label}
    found = {
        split: _pairs(root, directory, key) for split, directory in _directories(root, key).items()
    }
    paths = [image for pairs, _ in found.values() for image, _ in pairs]
    findings = check.check(root, paths, section.max_pixels)
    problems = {name: why for _, lacking in found.values() for name, why in lacking.items()}
    problems |= {path: finding.reason for path, finding in findings.items() if finding.reason}
    good: dict[str, list[tuple[str, str]]] = {}
    counts = np.zeros(256, np.int64)
    for split, (pairs, _) in found.items():
        good[split] = []
        usable = [pair for pair in pairs if not findings[pair[0]].reason]
        for pair, answer in zip(usable, _examined(root, usable), strict=True):
            if isinstance(answer, str):
                problems[pair[0]] = answer
            else:
                good[split].append(pair)
                counts += answer
    folder.warn_rejected(problems, len(problems) + sum(map(len, good.values())))
    for split, pairs in good.items():
        if not pairs:
            name, why = min(problems.items(), default=("", "is not there"))
            raise UserError(
                f"{key}: the split {split!r} has no image with a label map that can be used (such "
                f"as {name!r}, which {why}); give images/A.jpg and labels/A.png"
            )
    names = _class_names(root, counts, ignored)
    table = bytes(crops.IGNORE if number in ignored else number for number in range(256))
    records = {
        split: MapRecords(root, tuple(i for i, _ in pairs), tuple(m for _, m in pairs), table)
        for split, pairs in good.items()
    }
    return Dataset(
        section.name,
        records,
        len(names),
        names,
        apply_exif=True,
        label_maps=True,
        colourless=sum(findings[path].colourless for path in records["train"].paths),
    )


def has_label_maps(path: str) -> bool:
    """Whether a folder has images and label maps side by side, as this dataset has them."""
    root = os.path.expanduser(path)
    return any(
        all(os.path.isdir(os.path.join(root, split, name)) for name in (_IMAGES, _LABELS))
        for split in ("", "train")
    )


def _directories(root: str, key: str) -> dict[str, str]:
    """Split -> its directory below the root, '' where the root itself has the images."""
    if os.path.isdir(os.path.join(root, _IMAGES)):
        return {"train": ""}
    found: dict[str, str] = {}
    for name in sorted(os.listdir(root)):
        split = _SPLITS.get(name.lower())
        if split and os.path.isdir(os.path.join(root, name, _IMAGES)):
            if split in found:
                raise UserError(
                    f"{key}: {found[split]!r} and {name!r} are both the split {split!r}; rename one"
                )
            found[split] = name
    if "train" not in found:
        raise UserError(
            f"{key}: has neither {_IMAGES}/ and {_LABELS}/ nor train/{_IMAGES}/ and "
            f"train/{_LABELS}/; put the images and their label maps there"
        )
    return found


def _pairs(root: str, directory: str, key: str) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The images of a split with their label maps, and what has no partner, with the reason."""
    base = os.path.join(root, directory)
    images = scan.scan(os.path.join(base, _IMAGES))
    if not os.path.isdir(os.path.join(base, _LABELS)):
        raise UserError(
            f"{key}: {os.path.join(directory, _IMAGES)} has no {_LABELS}/ beside it, with a PNG "
            "for every image"
        )
    maps = {
        os.path.splitext(name)[0]: name
        for name in scan.scan(os.path.join(base, _LABELS)).images
        if name.lower().endswith(".png")
    }
    pairs, lacking = [], {}
    for name in images.images:
        image = os.path.join(directory, _IMAGES, name)
        other = maps.get(os.path.splitext(name)[0])
        if other is None:
            stem = os.path.splitext(name)[0]
            lacking[image] = f"has no label map {os.path.join(directory, _LABELS, stem)}.png"
        else:
            pairs.append((image, os.path.join(directory, _LABELS, other)))
    return pairs, lacking | {
        os.path.join(directory, _IMAGES, name): why for name, why in images.unreadable.items()
    }


def _examined(root: str, pairs: Sequence[tuple[str, str]]) -> list[np.ndarray | str]:
    """For every pair, the pixels of each number, int64 (256,), or why it cannot be used."""

    def one(pair: tuple[str, str]) -> np.ndarray | str:
        image, label = (os.path.join(root, path) for path in pair)
        try:
            with open(label, "rb") as file:
                ids = crops.decode_gray(file.read())
            with open(image, "rb") as file, decoding.open_header(file) as header:
                size = decoding.upright_size(header)
        except OSError as error:
            return f"has a label map that cannot be read ({error.strerror})"
        except ValueError as error:
            return f"has a label map that {error}"
        if ids.shape != size:
            sizes = " and ".join(f"{width} x {height}" for height, width in (size, ids.shape))
            return f"and its label map differ in size ({sizes})"
        return np.bincount(ids.ravel(), minlength=256)

    _LOG.info("Checking %s label maps.", f"{len(pairs):,}")
    with concurrent.futures.ThreadPoolExecutor(min(16, workers.cores())) as pool:
        return list(pool.map(one, pairs))


def _class_names(root: str, counts: np.ndarray, ignored: set[int]) -> tuple[str, ...]:
    """The names of the classes: those of classes.txt, or the numbers up to the largest."""
    used = [int(k) for k in np.flatnonzero(counts) if k not in ignored]
    if not used:
        raise UserError(f"dataset {root}: every pixel of its label maps is ignored")
    share = 100 * counts[sorted(ignored)].sum() / counts.sum()
    path = os.path.join(root, _NAMES)
    names = tuple(map(str, range(max(used) + 1)))
    if os.path.exists(path):
        lines = [line.strip() for line in reading.user_text(path, "dataset").splitlines()]
        names = tuple(line for line in lines if line)
        if max(used) >= len(names):
            raise UserError(
                f"{path}: names {len(names)} classes, but label maps hold the number {max(used)}; "
                "add names, or give it as config.dataset.ignore_label"
            )
    _LOG.info(
        "Label maps: %d classes, of which %d occur; %.0f%% of the pixels are ignored.",
        len(names),
        len(used),
        share,
    )
    repeated = [name for name, count in collections.Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f"{path}: names {repeated[0]!r} twice; give every class one name")
    return names
