"""Prepares ImageNet-1K and ImageNet-22K from the published archives or from folders.

    imagenet2012  a folder with
        ILSVRC2012_img_train.tar (1,000 tar archives in one) or train/ of class folders or archives;
        ILSVRC2012_img_val.tar, or val/ of class folders or of all images;
        where val is not in class folders, its labels: ILSVRC2012_devkit_t12.tar.gz (or unpacked),
        imagenet_2012_validation_synset_labels.txt or LOC_val_solution.csv.
    imagenet22k   one tar archive of class archives, or a folder of class folders or archives.

Classes are numbered in the order of their synset names, as TFDS and torchvision do. Images are
stored as they are, byte by byte; the pipeline decodes those that are CMYK or no JPEG inside.
"""

import csv
import functools
import io
import os
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import scipy.io
import tensorflow_datasets as tfds

from unnas_jax.core.errors import UserError
from unnas_jax.data import archives, listing, shards, verify
from unnas_jax.data.scan import is_system_file

_EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".gif")
_SYNSET = re.compile(r"n\d{8}")
_CLASSES_1K = 1000
_VAL_TAR, _TRAIN_TAR = "ILSVRC2012_img_val.tar", "ILSVRC2012_img_train.tar"
_DEVKIT = "ILSVRC2012_devkit_t12"
_SYNSET_LABELS = "imagenet_2012_validation_synset_labels.txt"
_SOLUTION = "LOC_val_solution.csv"
_MAT_COMPRESSED = 15  # A part of a MATLAB file of version 5.


@dataclass(frozen=True)
class _Container:
    """Images of one class: a folder, or an archive, maybe within an archive."""

    name: str
    place: archives.Place
    folder: bool


def imagenet_1k(source: str, *, partial: bool = False) -> shards.Recipe:
    """ImageNet-1K (ILSVRC2012).

    Args:
      source: the folder of the archives or of train/ and val/.
      partial: allows that classes or the validation split are missing.

    Raises:
      UserError: something is not there, or is damaged as a whole.
    """
    train = _first(source, _TRAIN_TAR, "train")
    if not train:
        raise UserError(
            f"--source={source!r}: has neither {_TRAIN_TAR} nor train/; give the folder of one"
        )
    containers, damaged = _class_containers(train)
    if len(containers) != _CLASSES_1K and not partial:
        raise UserError(
            f"--source: {train} has {len(containers)} classes, not {_CLASSES_1K:,}, and the "
            "numbers of the others would change; complete it, or add --partial"
        )
    number = {name: k for k, name in enumerate(sorted(containers))}
    groups = {"train": _class_groups(containers, number, "")}
    validation = _first(source, _VAL_TAR, "val", "validation")
    if validation:
        groups["validation"] = _validation_groups(source, validation, number)
    elif not partial:
        raise UserError(
            f"--source={source!r}: has neither {_VAL_TAR} nor val/; add one, or --partial"
        )
    return shards.Recipe(
        name="imagenet2012",
        version="1.0.0",
        description="ImageNet-1K (ILSVRC2012), the files as published.",
        source=source,
        features=functools.partial(_features, tuple(sorted(containers))),
        groups=groups,
        make=_make,
        expected={"train": 1_281_167, "validation": 50_000},
        notes=damaged,
    )


def imagenet_22k(source: str, *, files: str = "") -> shards.Recipe:
    """ImageNet-22K: every class there is; the fall 2011 release has 21,841.

    Args:
      source: an archive of archives, or a folder of class folders or archives.
      files: a list of the images to use, one `class/file` or `file` a line; '': all.

    Raises:
      UserError: there is no class, or the archive is damaged as a whole.
    """
    containers, damaged = _class_containers(source)
    if files:
        _wanted(files)  # To fail now if it cannot be read.
    number = {name: k for k, name in enumerate(sorted(containers))}
    return shards.Recipe(
        name="imagenet22k",
        version="1.0.0",
        description="ImageNet-22K, the files as published.",
        source=source,
        features=functools.partial(_features, tuple(sorted(containers))),
        groups={"train": _class_groups(containers, number, files)},
        make=_make,
        expected={},
        notes=(f"{len(containers):,} classes", *damaged),
    )


def _features(classes: Sequence[str]) -> tfds.features.FeaturesDict:
    """As TFDS's own imagenet2012."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=list(classes)),
            "file_name": tfds.features.Text(),
        }
    )


def _make(name: str, payload: Any) -> shards.Example:
    """Reads and decodes one image."""
    place, label = payload
    try:
        data = archives.read(archives.Place(*place))
    except archives.Damaged as error:
        raise shards.Rejected(str(error)) from error
    reason = verify.why_unusable(data, full=True)
    if reason:
        raise shards.Rejected(reason)
    features = {"image": data, "label": label, "file_name": name}
    return shards.Example(features, verify.oddities(data, name))


def _first(source: str, *names: str) -> str:
    """The first of these files or folders that is there, or ''."""
    if not os.path.isdir(source):
        raise UserError(f"--source={source!r}: is no folder; give the one that holds the files")
    paths = [os.path.join(source, name) for name in names]
    return next((path for path in paths if os.path.exists(path)), "")


# Classes.


def _class_containers(source: str) -> tuple[dict[str, list[_Container]], tuple[str, ...]]:
    """Class -> the place of its images; and the other entries."""
    found: dict[str, list[_Container]] = {}
    others = []
    if os.path.isdir(source):
        for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
            if is_system_file(entry.name):
                continue
            if entry.is_dir():
                inner = _Container(entry.name, archives.Place(entry.path), True)
                found.setdefault(entry.name, []).append(inner)
            elif entry.name.endswith(".tar"):
                inner = _Container(entry.name, archives.Place(entry.path), False)
                found.setdefault(entry.name.removesuffix(".tar"), []).append(inner)
            else:
                others.append(f"{entry.path}: is neither a class folder nor a class archive")
    else:
        for member in _outer_members(source):
            stem, end = os.path.splitext(os.path.basename(member.name))
            if end == ".tar":
                place = archives.Place(source, member.offset, member.size)
                found.setdefault(stem, []).append(
                    _Container(os.path.basename(member.name), place, False)
                )
            else:
                others.append(f"{source}: its member {member.name} is no class archive")
    for name in found:
        unusable = archives.unusable_name(name)
        if unusable:
            raise UserError(f"--source: the class {name!a} in {source} {unusable}; rename it")
    if not found:
        raise UserError(
            f"--source: {source} has no class; give a folder of class folders, or a tar archive "
            "of class archives"
        )
    return found, tuple(others)


def _outer_members(path: str) -> list[archives.Member]:
    """The files of an archive, which must be whole: a cut one has lost an unknown part."""
    try:
        with open(path, "rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        if compressed:
            raise UserError(
                f"--source: {path} is compressed, and cannot be read in parallel; unpack it with "
                f"`tar -xzf {os.path.basename(path)}` and give the folder of its archives"
            )
        return list(archives.tar_members(archives.Place(path)))
    except OSError as error:
        raise UserError(f"--source: cannot read {path} ({error.strerror})") from error
    except archives.Damaged as error:
        raise UserError(f"--source: {path} {error}; download it again") from error


def _class_groups(
    containers: Mapping[str, Sequence[_Container]], number: Mapping[str, int], files: str
) -> list[listing.Group]:
    return [
        listing.Group(
            name,
            functools.partial(_list_class, name, number[name], tuple(places), files),
            (*(container.place.path for container in places), *([files] if files else [])),
        )
        for name, places in containers.items()
    ]


def _list_class(
    name: str, label: int, containers: Sequence[_Container], wanted_path: str
) -> listing.Listing:
    """The images of a class."""
    items: list[tuple[str, Any]] = []
    problems: list[listing.Problem] = []
    size = 0
    wanted = _wanted(wanted_path) if wanted_path else None
    for place, path, bytes_ in _images(containers, problems):
        file = os.path.basename(path)
        synset = _SYNSET.match(file)
        if synset and _SYNSET.fullmatch(name) and synset.group() != name:
            reason = f"is in the class {name}, but named after {synset.group()}"
            problems.append({"name": f"{name}/{file}", "reason": reason})
            continue
        if wanted is not None and not wanted & {file, f"{name}/{file}"}:
            continue
        # As published lists name them, and never the same in two classes.
        unique = file if file.startswith(f"{name}_") else f"{name}/{file}"
        items.append((unique, [place, label]))
        size += bytes_
    return listing.Listing(items, size, problems)


def _images(
    containers: Sequence[_Container], problems: list[listing.Problem]
) -> list[tuple[archives.Place, str, int]]:
    """Place, name and size of the images; other files go to `problems`."""
    found = []
    for container in containers:
        if container.folder:
            for entry in sorted(os.scandir(container.place.path), key=lambda entry: entry.name):
                if is_system_file(entry.name):
                    continue
                try:
                    if entry.is_dir():
                        reason = "is a folder in a class folder"
                    elif not entry.is_file():
                        reason = "is no regular file"
                    else:
                        place = archives.Place(entry.path)
                        found.append((place, entry.name, entry.stat().st_size))
                        continue
                except OSError as error:
                    reason = f"cannot be read ({error.strerror})"
                problems.append({"name": entry.path, "reason": reason})
        else:
            path = container.place.path
            try:
                for member in archives.tar_members(container.place):
                    place = archives.Place(path, member.offset, member.size)
                    found.append((place, member.name, member.size))
            except archives.Damaged as error:
                reason = f"{error}; what comes before is used"
                problems.append({"name": container.name, "reason": reason})
    images = []
    for place, name, size in found:
        if name.lower().endswith(_EXTENSIONS):
            images.append((place, name, size))
        else:
            problems.append({"name": name, "reason": f"is no image by its name, in {place.path}"})
    return images


@functools.lru_cache(maxsize=1)
def _wanted(path: str) -> frozenset[str]:
    """The lines of a list of files."""
    try:
        with open(path, encoding="utf-8") as file:
            return frozenset(line.strip() for line in file if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--files={path!r}: cannot be read ({error})") from error


# Validation images and their labels.


def _validation_groups(source: str, path: str, number: Mapping[str, int]) -> list[listing.Group]:
    folder = os.path.isdir(path)
    if folder and any(os.path.isdir(os.path.join(path, name)) for name in os.listdir(path)):
        containers, _ = _class_containers(path)
        unknown = sorted(set(containers) - set(number))
        if unknown:
            raise UserError(
                f"--source: {path} has the class {unknown[0]}, which the training images have "
                "not; give both of the same dataset"
            )
        return _class_groups(containers, number, "")
    synsets, label_file = _truth(source)
    unknown = sorted(set(synsets.values()) - set(number))
    if unknown:
        raise UserError(
            f"--source: {label_file} names the class {unknown[0]}, which the training images "
            "have not; give both of the same dataset"
        )
    if not folder:
        _outer_members(path)
    labels = {name: number[synset] for name, synset in synsets.items()}
    container = _Container(os.path.basename(path), archives.Place(path), folder)
    lister = functools.partial(_list_validation, container, labels, label_file)
    return [listing.Group("validation", lister, (path, label_file))]


def _list_validation(
    container: _Container, labels: Mapping[str, int], label_file: str
) -> listing.Listing:
    """The images that have a label; those without, and labels without image, are problems."""
    problems: list[listing.Problem] = []
    items: list[tuple[str, Any]] = []
    size = 0
    for place, path, bytes_ in _images([container], problems):
        name = os.path.basename(path)
        label = labels.get(os.path.splitext(name)[0])
        if label is None:
            problems.append({"name": name, "reason": f"has no label in {label_file}"})
        else:
            items.append((name, [place, label]))
            size += bytes_
    missing = set(labels) - {os.path.splitext(name)[0] for name, _ in items}
    problems += [
        {"name": name, "reason": f"has a label, but is not in {container.place.path}"}
        for name in sorted(missing)
    ]
    return listing.Listing(items, size, problems)


def _truth(source: str) -> tuple[dict[str, str], str]:
    """Image (without its ending) -> synset, of the validation split; and the file that says it."""
    path = _first(source, f"{_DEVKIT}.tar.gz", _DEVKIT, _SYNSET_LABELS, _SOLUTION)
    if not path:
        raise UserError(
            f"--source={source!r}: the validation images have no labels: put {_DEVKIT}.tar.gz, "
            f"{_SYNSET_LABELS} or {_SOLUTION} there"
        )
    try:
        if _DEVKIT in os.path.basename(path):
            synsets = _devkit(path)
        elif path.endswith(".csv"):
            text = archives.read(archives.Place(path)).decode()
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
            return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}, path
        else:
            synsets = archives.read(archives.Place(path)).decode().split()
    except Exception as error:  # SciPy's reader raises anything.
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"--source: cannot read the validation labels in {path} ({line}); download it again"
        ) from error
    return {f"ILSVRC2012_val_{k:08d}": synset for k, synset in enumerate(synsets, 1)}, path


def _check_mat(data: bytes) -> None:
    """Refuses a MATLAB file whose compressed parts unpack to more than a dataset would."""
    place = 128  # Where the first part begins, behind the header.
    while place + 8 <= len(data):
        kind, size = struct.unpack("<II", data[place : place + 8])
        if kind == _MAT_COMPRESSED:
            unpacking = zlib.decompressobj()
            unpacking.decompress(data[place + 8 : place + 8 + size], archives.MAX_BYTES)
            if unpacking.unconsumed_tail:
                raise ValueError("meta.mat unpacks to too much")
        place += 8 + size


def _devkit(path: str) -> list[str]:
    """The synsets of the validation images in their order, from the development kit."""
    names = ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")
    if os.path.isdir(path):
        contents = []
        for name in names:
            contents.append(archives.read(archives.Place(os.path.join(path, "data", name))))
    else:
        contents = archives.tar_files(path, tuple(f"{_DEVKIT}/data/{name}" for name in names))
    meta, truth = contents
    _check_mat(meta)
    rows = scipy.io.loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    synsets = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}
    return [synsets[int(line)] for line in truth.split()]
