"""Cityscapes with its fine label maps: prepares it from the published files, and opens it.

Images are stored as raw pixels, which no codec changes and nothing has to decode. Of a train crop
of 321 (2048 x 1024 pixels, scale and crop of the search), reading, decoding, cutting and resizing
together take, in ms of CPU and MB an image:

    PNG as published                  38 ms   3.0 MB
    raw pixels (PPM)                   8      6.3
    tiles of 128, TIFF with LZW       13      3.4
    tiles of 256, the same            13      3.4
    tiles of 128, PNG (Huffman only)  15      3.0
    raw pixels, zstd by array_record  15      5.8
    tiles of 256, WebP lossless       17      2.4
    PNG of level 0, zstd              26      3.3

The 5,000 images take 31 GB, the training half of a search 9 GB, which the page cache of a machine
with an accelerator holds. Label maps are PNGs of the highest level without filter: 0.08 MB and
2.5 ms (with the default filters: 0.12 MB and 9.6 ms).
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from unnas_jax.config.sections import DatasetSection
from unnas_jax.core.errors import UserError
from unnas_jax.data import (
    archives,
    crops,
    decoding,
    inspection,
    listing,
    scan,
    shards,
    tfds_source,
    verify,
)
from unnas_jax.data.records import Dataset

CLASSES = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)
COLORS = (
    (128, 64, 128),
    (244, 35, 232),
    (70, 70, 70),
    (102, 102, 156),
    (190, 153, 153),
    (153, 153, 153),
    (250, 170, 30),
    (220, 220, 0),
    (107, 142, 35),
    (152, 251, 152),
    (70, 130, 180),
    (220, 20, 60),
    (255, 0, 0),
    (0, 0, 142),
    (0, 0, 70),
    (0, 60, 100),
    (0, 80, 100),
    (0, 0, 230),
    (119, 11, 32),
)
"""RGB of the classes, as Cityscapes paints them."""

# Not "cityscapes": TFDS looks only for its own configurations of that name.
_NAME = "cityscapes_fine"

_TRAINED_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_LAST_ID = 33

_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_IMAGE_END = "_leftImg8bit.png"
_LABEL_ENDS = ("_gtFine_labelIds.png", "_gtFine_labelTrainIds.png")
_COLOUR_END = "_gtFine_color.png"
_SAMPLE = 16  # Label maps that are looked at before the work begins.
_STORED_BYTES = 3 * 2048 * 1024


def label_table() -> bytes:
    """The table from the ids of gtFine_labelIds to the 19 classes; the rest is `crops.IGNORE`."""
    table = bytearray([crops.IGNORE] * 256)
    for number, stored in enumerate(_TRAINED_IDS):
        table[stored] = number
    return bytes(table)


# Preparing.


@dataclass(frozen=True)
class _File:
    """A published file.

    Attributes:
      split, city: the folders that it lies in.
      image: the part of its name that image and label map share.
      end: the rest.
      place: where it is.
    """

    split: str
    city: str
    image: str
    end: str
    place: archives.Place


def cityscapes(source: str) -> shards.Recipe:
    """Cityscapes: leftImg8bit and gtFine, as zips or unpacked, in one folder.

    Raises:
      UserError: one of the two is not there, or a zip is damaged as a whole.
    """
    images, image_roots, others = _find(source, "leftImg8bit", (_IMAGE_END,))
    strange = [place for place in others if place.name.endswith(".png")]
    labels, label_roots, others = _find(source, "gtFine", _LABEL_ENDS)
    _check_labels(source, [file for file in labels if file.split == "train"], others)
    groups = {}
    for folder, split in _SPLITS.items():
        of_split = [file for file in images if file.split == folder]
        if of_split:
            maps = [file for file in labels if file.split == folder]
            lister = functools.partial(_list_split, folder, of_split, maps)
            groups[split] = [listing.Group(split, lister, (*image_roots, *label_roots))]
    if "train" not in groups:
        raise UserError(f"--source={source!r}: has no leftImg8bit/train/CITY/*{_IMAGE_END}")
    return shards.Recipe(
        name=_NAME,
        version="1.0.0",
        description="Cityscapes, left images with fine label maps of the 19 trained classes.",
        source=source,
        features=_features,
        groups=groups,
        make=_make,
        expected={"train": 2975, "validation": 500, "test": 1525},
        notes=tuple(f"{place}: is no image by its name" for place in strange),
    )


def _features() -> tfds.features.FeaturesDict:
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "train_ids": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "image_id": tfds.features.Text(),
        }
    )


def _find(
    source: str, kind: str, ends: Sequence[str]
) -> tuple[list[_File], tuple[str, ...], list[archives.Place]]:
    """The files `kind`/SPLIT/CITY/NAME in a folder and in zips; what they lie in; other files."""
    if not os.path.isdir(source):
        raise UserError(f"--source={source!r}: is no folder; give the one that holds the files")
    names = sorted(os.listdir(source))
    zips = [n for n in names if n.startswith(f"{kind}_") and n.endswith(".zip")]
    roots = [os.path.join(source, name) for name in (kind, *zips) if name in names]
    if not roots:
        raise UserError(f"--source={source!r}: has neither {kind}/ nor {kind}_*.zip; add one")
    files, others = [], []
    for root in roots:
        for path, place in _walk(root) if os.path.isdir(root) else _members(root):
            *_, split, city, name = ("", "", *path.split("/"))
            end = next((end for end in ends if name.endswith(end)), "")
            if end and split in _SPLITS:
                files.append(_File(split, city, name.removesuffix(end), end, place))
            elif not scan.is_system_file(name):
                others.append(place)
    return files, tuple(roots), others


def _check_labels(source: str, maps: Sequence[_File], others: Sequence[archives.Place]) -> None:
    """Looks at some label maps of the train split, before hours are spent on them."""
    if not maps:
        colours = any(place.name.endswith(_COLOUR_END) for place in others)
        only = f"only *{_COLOUR_END}, which are pictures of the classes" if colours else "none"
        raise UserError(
            f"--source={source!r}: *{_LABEL_ENDS[0]} are missing in gtFine/train ({only}); they "
            "are in gtFine_trainvaltest.zip"
        )
    counts = np.zeros(256, np.int64)
    for k in np.unique(np.linspace(0, len(maps) - 1, _SAMPLE).astype(int)):
        with contextlib.suppress(archives.Damaged, shards.Rejected):  # Reported with its image.
            classes = _classes(archives.read(maps[k].place), maps[k].end)
            counts += np.bincount(classes.ravel(), minlength=256)
    if counts.any():
        words, foreign = inspection.describe_label_maps(counts, len(CLASSES))
        if foreign:
            raise UserError(
                f"--source={source!r}: {words}; *{maps[0].end} have the ids of another dataset: "
                "give Cityscapes' own"
            )


def _walk(root: str) -> Iterator[tuple[str, archives.Place]]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            yield path.replace(os.sep, "/"), archives.Place(path)


def _members(root: str) -> Iterator[tuple[str, archives.Place]]:
    for name in archives.zip_names(root):
        yield name, archives.Place(root, member=name)


def _list_split(folder: str, images: Sequence[_File], labels: Sequence[_File]) -> listing.Listing:
    """Pairs of image and label map; of two kinds of map, the one with all ids."""
    maps: dict[tuple[str, str], _File] = {}
    for end in reversed(_LABEL_ENDS):
        maps |= {(file.city, file.image): file for file in labels if file.end == end}
    items: list[tuple[str, Any]] = []
    problems: list[listing.Problem] = []
    for file in images:
        label = maps.get((file.city, file.image))
        if not file.image.startswith(f"{file.city}_"):
            reason = f"is in the folder of another city, {file.city}"
            problems.append({"name": file.image, "reason": reason})
        elif label is None and folder != "test":
            reason = f"has no label map gtFine/{folder}/{file.city}/{file.image}{_LABEL_ENDS[0]}"
            problems.append({"name": file.image, "reason": reason})
        else:
            items.append((file.image, [file.place, *((label.place, label.end) if label else ())]))
    orphans = set(maps) - {(file.city, file.image) for file in images}
    problems += [{"name": image, "reason": "is a label map without image"} for _, image in orphans]
    return listing.Listing(items, len(items) * _STORED_BYTES, problems)


def _make(name: str, payload: Any) -> shards.Example:
    """Reads, checks and converts an image and its label map."""
    data = _read(payload[0])
    reason = verify.why_unusable(data)
    if reason:
        raise shards.Rejected(reason)
    image = decoding.decode(data, apply_exif=False)
    if len(payload) > 1:
        classes = _classes(_read(payload[1]), payload[2])
        if classes.shape != image.shape[:2]:
            sizes = [f"{a.shape[1]} x {a.shape[0]}" for a in (image, classes)]
            raise shards.Rejected(f"is {sizes[0]}, but its label map {sizes[1]}")
    else:  # The test split is published without.
        classes = np.full(image.shape[:2], crops.IGNORE, np.uint8)
    ppm = cv2.imencode(".ppm", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    options = [cv2.IMWRITE_PNG_COMPRESSION, 9, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    png = cv2.imencode(".png", classes, options)[1].tobytes()
    return shards.Example({"image": ppm, "train_ids": png, "image_id": name})


def _read(place: Sequence[Any]) -> bytes:
    try:
        return archives.read(archives.Place(*place))
    except archives.Damaged as error:
        raise shards.Rejected(f"{place[3] or place[0]} {error}") from error


def _classes(data: bytes, end: str) -> np.ndarray:
    """The label map as classes; every id must be a known one."""
    reason = verify.why_unusable(data)
    try:
        ids = crops.decode_gray(data) if not reason else np.zeros((0, 0), np.uint8)
    except ValueError as error:
        reason = str(error)
    if reason:
        raise shards.Rejected(f"its label map {reason}")
    # 255 is also how -1, the licence plates, is stored.
    last = _LAST_ID if end == _LABEL_ENDS[0] else len(CLASSES) - 1
    unknown = np.setdiff1d(np.unique(ids), [*range(last + 1), crops.IGNORE])
    if len(unknown):
        raise shards.Rejected(f"its label map has the unknown id {unknown[0]}")
    return crops.LabelMap(data, label_table() if end == _LABEL_ENDS[0] else b"").decode()


# Opening.


def open_dataset(section: DatasetSection) -> Dataset:
    """Cityscapes as prepared here or, if it is not, by TFDS (`cityscapes/semantic_segmentation`).

    Args:
      section: a config's `dataset`: of its fields `name` and `data_dir`, where TFDS keeps datasets.

    Raises:
      UserError: it is not prepared.
    """
    name, data_dir = section.name, section.data_dir
    try:
        builder = tfds_source.find_builder(_NAME, name, data_dir)
    except UserError:
        builder = tfds_source.find_builder("cityscapes/semantic_segmentation", name, data_dir)
    dataset = tfds_source.from_builder(builder, name)
    own = "train_ids" in builder.info.features
    label_map, table = ("train_ids", b"") if own else ("segmentation_label", label_table())
    image = "image" if own else "image_left"
    splits = {
        split: dataclasses.replace(records, image=image, label_map=label_map, table=table)
        for split, records in dataset.splits.items()
        if isinstance(records, tfds_source.TfdsRecords)
    }
    return dataclasses.replace(
        dataset,
        splits=splits,
        num_classes=len(CLASSES),
        class_names=CLASSES,
        label_maps=True,
        colors=COLORS,
    )
