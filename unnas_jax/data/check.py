"""Reads all files of a folder once, before a run depends on them, and remembers what was found."""

import concurrent.futures
import dataclasses
import hashlib
import json
import logging
import os
import stat
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import IO

import cv2
import PIL

from unnas_jax.core import cache, files
from unnas_jax.core.errors import UserError
from unnas_jax.core.words import counted
from unnas_jax.data import decoding, verify, workers
from unnas_jax.data.verify import Finding

_LOG = logging.getLogger("unnas_jax")

_MAX_THREADS = 16
_PROGRESS_SECONDS = 5.0
_AT_ONCE = 1024  # Files that are handed to the threads together.
# Pixels of all images that are decoded at the same time; a larger image is decoded alone.
_PIXELS_AT_ONCE = 100_000_000
_MAX_BYTES = 2**30  # Largest file, unless the limit of pixels asks for more.

_Signature = tuple[int, int]
"""A file's size in bytes and the time of its last change in ns."""

_Known = dict[str, tuple[_Signature, Finding]]
"""Findings about files, by path."""


class _Budget:
    """Keeps the pixels that threads decode at the same time below a limit."""

    def __init__(self, limit: int) -> None:
        self._limit, self._free, self._condition = limit, limit, threading.Condition()

    def take(self, amount: int) -> int:
        """Waits until so many pixels are free, or all of them if it is more than the limit."""
        amount = min(amount, self._limit)
        with self._condition:
            self._condition.wait_for(lambda: self._free >= amount)
            self._free -= amount
        return amount

    def give(self, amount: int) -> None:
        """Gives back the pixels that `take` returned."""
        with self._condition:
            self._free += amount
            self._condition.notify_all()


def _open_regular(path: str) -> IO[bytes]:
    """Opens a file; one that has become a pipe since it was listed does not block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = os.fdopen(descriptor, "rb")
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return file
    file.close()
    raise decoding.Undecodable("is no regular file")


def examine_file(path: str, max_pixels: int, budget: _Budget | None = None) -> Finding:
    """Reads a file as training does, and returns the finding.

    Args:
      path: of the file.
      max_pixels: of an image at most.
      budget: shared with the threads that do the same.

    Raises:
      MemoryError: there is too little memory for it.
    """
    budget = budget or _Budget(_PIXELS_AT_ONCE)
    try:
        with _open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                return Finding("is empty")
            if size > max(_MAX_BYTES, 8 * max_pixels):
                return Finding(f"has {size:,} bytes, too many for an image")
            image = decoding.open_header(file)
            count = verify.pixels(image, max_pixels)
            if image.format == "JPEG" and "progressive" not in image.info:
                count //= 64  # Decoded at an eighth of the resolution.
            taken = budget.take(max(count, size // 4))
            try:
                file.seek(0)
                return verify.examine(file.read(), apply_exif=True)
            finally:
                budget.give(taken)
    except decoding.Undecodable as error:
        return Finding(str(error))
    except OSError as error:
        return Finding(error.strerror or str(error))


def check(root: str, paths: Sequence[str], max_pixels: int) -> dict[str, Finding]:
    """The finding about each file; files that are new or have changed are read.

    Args:
      root: the folder.
      paths: files, relative to it.
      max_pixels: of an image at most.

    Raises:
      UserError: there is too little memory for an image.
    """
    cache_path = _cache_path(root)
    cached = _load_cache(cache_path, max_pixels)
    signatures = {path: _signature(os.path.join(root, path)) for path in paths}
    known = {
        path: cached[path]
        for path in paths
        if path in cached and cached[path][0] == signatures[path]
    }
    unknown = [path for path in paths if path not in known]
    if unknown:
        try:
            for path, finding in _read(root, unknown, max_pixels):
                known[path] = (signatures[path], finding)
        finally:  # Also the findings of an interrupted run.
            _save_cache(cache_path, known, max_pixels)
    return {path: known[path][1] for path in paths}


def _read(root: str, paths: Sequence[str], max_pixels: int) -> Iterator[tuple[str, Finding]]:
    """Examines files in threads and says how far it is."""
    _LOG.info("Checking %s, once.", counted(len(paths), "image"))
    budget = _Budget(_PIXELS_AT_ONCE)

    def examine(path: str) -> Finding:
        try:
            return examine_file(os.path.join(root, path), max_pixels, budget)
        except MemoryError as error:
            raise UserError(
                f"config.dataset.path: there is too little memory to read "
                f"{os.path.join(root, path)!r}; move it away, or leave out images of its size with "
                f"a config.dataset.max_pixels below {max_pixels}"
            ) from error

    begin = reported = time.monotonic()
    pool = concurrent.futures.ThreadPoolExecutor(min(_MAX_THREADS, workers.cores()))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's on odd metadata: pixels are what counts.
            for first in range(0, len(paths), _AT_ONCE):
                some = paths[first : first + _AT_ONCE]
                findings = pool.map(examine, some)
                for done, found in enumerate(zip(some, findings, strict=True), first + 1):
                    yield found
                    now = time.monotonic()
                    if now - reported > _PROGRESS_SECONDS:
                        reported = now
                        _LOG.info(
                            "Checked %s of %s images (%.0f%%), %.0f a second.",
                            f"{done:,}",
                            f"{len(paths):,}",
                            100 * done / len(paths),
                            done / (now - begin),
                        )
    finally:
        pool.shutdown(cancel_futures=True)


def _signature(path: str) -> _Signature:
    try:
        status = os.stat(path)
    except OSError:  # It has gone since; reading it will tell.
        return -1, -1
    return status.st_size, status.st_mtime_ns


# The cache.


def _cache_path(root: str) -> str:
    key = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:20]
    return cache.path("folders", f"{key}.json")


def _versions(max_pixels: int) -> list[str]:
    """The versions on which a finding depends, besides the file."""
    return ["2", cv2.__version__, PIL.__version__, str(max_pixels)]


def _load_cache(path: str, max_pixels: int) -> _Known:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        if content["versions"] != _versions(max_pixels):
            return {}
        return {
            name: ((int(size), int(changed)), Finding(str(reason), bool(colourless), int(bits)))
            for name, (size, changed, reason, colourless, bits) in content["files"].items()
        }
    # A cache: if anything is wrong with it, it is made anew.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _save_cache(path: str, known: _Known, max_pixels: int) -> None:
    listed = {
        name: [*signature, *dataclasses.astuple(finding)]
        for name, (signature, finding) in known.items()
    }
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with files.replacing(path) as file:
            json.dump({"versions": _versions(max_pixels), "files": listed}, file)
    except OSError as error:
        _LOG.warning(
            "Cannot write %s (%s); the images will be checked again in the next run.",
            path,
            error.strerror,
        )
