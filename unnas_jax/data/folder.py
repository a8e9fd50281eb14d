"""The dataset `folder`: a user's own images, any nested folder of JPEG, PNG and WebP files."""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import PIL
from absl import logging

from unnas_jax.core.errors import UserError
from unnas_jax.data import registry, verify

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_NAMED = 20  # Rejected files that are named in the warning.
_PROGRESS_SECONDS = 5.0

# Relative path -> [size, time of change in ns, why it is rejected or ''].
_Verdicts = dict[str, list[Any]]


@dataclasses.dataclass(frozen=True)
class FolderRecords:
    """Image files.

    Attributes:
      root: the folder.
      paths: of the files, relative to it.
      labels: one number a file.
    """

    root: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int, /) -> Mapping[str, Any]:
        try:
            with open(os.path.join(self.root, self.paths[i]), "rb") as file:
                return {"image": file.read(), "label": self.labels[i]}
        except OSError as error:
            raise UserError(
                f"dataset: cannot read {self.describe(i)} ({error.strerror}); it was there when "
                "the run began"
            ) from error

    def names(self) -> Sequence[str]:
        """The paths, by which subset lists name examples."""
        return self.paths

    def describe(self, i: int) -> str:
        """The path of record `i`."""
        return repr(os.path.join(self.root, self.paths[i]))


def find_images(root: str) -> list[str]:
    """The images below a folder by extension, relative to it and sorted.

    Names that begin with a dot (thumbnails, leftovers of other systems) are passed over. Links to
    directories are followed, but every directory is entered once: links in a circle end.

    Raises:
      UserError: a directory cannot be listed.
    """
    found: list[str] = []
    entered = set()
    directories, links = [root], list[str]()
    while directories or links:
        # Links come last, so that what is reachable without them keeps its plain path.
        directory = directories.pop() if directories else links.pop(0)
        try:
            status = os.stat(directory)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(directory) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(
                f"config.dataset.path: cannot list {directory!r} ({error.strerror}); change its "
                "permissions or move it away"
            ) from error
        for entry in listed:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else directories).append(entry.path)
            elif entry.name.lower().endswith(_EXTENSIONS):
                found.append(os.path.relpath(entry.path, root))
    return sorted(found)


def why_unreadable(path: str) -> str:
    """Why a file is no whole image that training can decode; '' if it is one."""
    try:
        with open(path, "rb") as file:
            return verify.why_damaged(file.read())
    except OSError as error:
        return error.strerror or str(error)


def _cache_path(root: str) -> str:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    key = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:20]
    return os.path.join(base, "unnas_jax", "folders", f"{key}.json")


def _versions() -> list[str]:
    """What a verdict depends on apart from the file."""
    return ["1", cv2.__version__, PIL.__version__]


def _load_cache(path: str) -> _Verdicts:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        return dict(content["verdicts"]) if content["versions"] == _versions() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _save_cache(path: str, verdicts: _Verdicts) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=os.path.dirname(path), delete=False
        ) as file:
            json.dump({"versions": _versions(), "verdicts": verdicts}, file)
        os.replace(file.name, path)
    except OSError as error:
        logging.warning(
            "folder: cannot write %s (%s); the images will be checked again in the next run",
            path,
            error.strerror,
        )


def _signature(path: str) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:  # A link that leads nowhere; reading it will say so.
        return [-1, -1]
    return [status.st_size, status.st_mtime_ns]


def _check(root: str, paths: Sequence[str]) -> dict[str, str]:
    """Path -> why it is rejected or '', for all paths; decodes those not known yet."""
    cache_path = _cache_path(root)
    cached = _load_cache(cache_path)
    signatures = {path: _signature(os.path.join(root, path)) for path in paths}
    verdicts = {
        path: cached[path]
        for path in paths
        if path in cached and cached[path][:2] == signatures[path]
    }
    unknown = [path for path in paths if path not in verdicts]
    if not unknown:
        return {path: verdicts[path][2] for path in paths}
    logging.info("folder: checking %s images, once", f"{len(unknown):,}")
    pool = concurrent.futures.ThreadPoolExecutor(min(32, os.cpu_count() or 1))
    reported = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's on odd metadata: pixels are what counts.
            reasons = pool.map(why_unreadable, (os.path.join(root, path) for path in unknown))
            for done, (path, reason) in enumerate(zip(unknown, reasons, strict=True), 1):
                verdicts[path] = [*signatures[path], reason]
                if time.monotonic() - reported > _PROGRESS_SECONDS:
                    reported = time.monotonic()
                    share = done / len(unknown)
                    logging.info("folder: checked %s images (%.0f%%)", f"{done:,}", 100 * share)
    finally:  # Also what an interrupted run has found out.
        pool.shutdown(cancel_futures=True)
        _save_cache(cache_path, verdicts)
    return {path: verdicts[path][2] for path in paths}


def _warn(rejected: Mapping[str, str], total: int) -> None:
    named = "; ".join(f"{path!r} ({why})" for path, why in list(rejected.items())[:_NAMED])
    more = len(rejected) - _NAMED
    logging.warning(
        "folder: skipped %s of %s images that cannot be read: %s%s",
        f"{len(rejected):,}",
        f"{total:,}",
        named,
        f"; and {more:,} more" if more > 0 else "",
    )


def _by_split(paths: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """Split -> (path, path within the split): 'train' for all, or the directories of that name."""
    tops = {path.split(os.sep, 1)[0] for path in paths}
    names = [_SPLITS.get(top, "") for top in tops]
    if "train" not in names or "" in names or len(set(names)) < len(names):
        return {"train": [(path, path) for path in paths]}
    splits: dict[str, list[tuple[str, str]]] = {}
    for path in paths:
        top, rest = path.split(os.sep, 1)
        splits.setdefault(_SPLITS[top], []).append((path, rest))
    return splits


def _classes(splits: Mapping[str, Sequence[tuple[str, str]]]) -> tuple[str, ...]:
    """The class directories: of two at least, and with no image outside of them, or none."""
    inner = [rest for members in splits.values() for _, rest in members]
    if any(os.sep not in rest for rest in inner):
        return ()
    names = sorted({rest.split(os.sep, 1)[0] for rest in inner})
    return tuple(names) if len(names) > 1 else ()


def open_dataset(name: str, path: str, data_dir: str) -> registry.Dataset:
    """The images of a folder; those that cannot be read are named in a warning and left out.

    All images are the split 'train'; if the folder holds them in nothing but directories `train`
    and, if any, `val` or `validation` and `test`, those are the splits. If every image lies in a
    directory of the first level (of its split), and there are two or more, these are the classes.

    Args:
      name: for messages.
      path: the folder; `~` is expanded.
      data_dir: not used.

    Raises:
      UserError: there is no such folder, or no image in it that can be read.
    """
    del data_dir
    key = f"config.dataset.path={path!r}"
    if not path:
        raise UserError(f"{key}: give the folder of images")
    root = os.path.abspath(os.path.expanduser(path))
    if not os.path.exists(root):
        raise UserError(f"{key}: there is no folder {root!r}; check the spelling")
    if not os.path.isdir(root):
        raise UserError(f"{key}: is a file; give the folder that it lies in")
    found = find_images(root)
    if not found:
        if not os.listdir(root):
            raise UserError(f"{key}: the folder is empty; give one with JPEG, PNG or WebP images")
        raise UserError(
            f"{key}: no file below this folder ends in {', '.join(_EXTENSIONS)}; give one with "
            "JPEG, PNG or WebP images"
        )
    verdicts = _check(root, found)
    rejected = {file: why for file, why in verdicts.items() if why}
    good = [file for file in found if not verdicts[file]]
    if not good:
        first = found[0]
        raise UserError(
            f"{key}: none of its {len(found):,} images can be read (the first, {first!r}: "
            f"{rejected[first]}); give a folder with whole images"
        )
    if rejected:
        _warn(rejected, len(found))
    splits = _by_split(good)
    classes = _classes(splits)
    number = {class_name: k for k, class_name in enumerate(classes)}
    records = {
        split: FolderRecords(
            root,
            tuple(file for file, _ in members),
            tuple(number[rest.split(os.sep, 1)[0]] if classes else 0 for _, rest in members),
        )
        for split, members in splits.items()
    }
    logging.info("folder: %s images in %s", f"{len(good):,}", root)
    return registry.Dataset(name, records, len(classes), classes, apply_exif=True)
