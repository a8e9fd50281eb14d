"""Files where datasets are published: in folders, tar archives, tar archives in these, zips."""

import functools
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from unnas_jax.core.errors import UserError

_BLOCK = 512  # A tar archive is made of these, and ends with two of zeros.


class Place(NamedTuple):
    """Where the bytes of a file are. It survives JSON as a list.

    Attributes:
      path: a file: itself, an archive, or a zip.
      offset: where its bytes begin.
      size: how many they are; -1: all.
      member: its name within a zip, or ''.
    """

    path: str
    offset: int = 0
    size: int = -1
    member: str = ""

    def __str__(self) -> str:
        inside = f" in {self.path}"
        return self.member + inside if self.member else self.path


class Damaged(Exception):
    """Files cannot be read, or an archive ends too early; the message is what follows its name."""


class Member(NamedTuple):
    """A file in a tar archive: its name there, and where its bytes begin in the outermost file."""

    name: str
    offset: int
    size: int


class _Window:
    """A part of a file as a file of its own, for `tarfile`."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._position = file, start, size, 0

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._position)
        count = left if count < 0 else min(count, left)
        self._file.seek(self._start + self._position)
        data = self._file.read(count)
        self._position += len(data)
        return data


def tar_members(place: Place) -> Iterator[Member]:
    """The files of an archive, which may itself lie in an archive, without reading their content.

    Raises:
      Damaged: it is no tar archive or is cut off, after all whole files before that were yielded.
    """
    end = os.path.getsize(place.path)
    size = min(place.size, end - place.offset) if place.size >= 0 else end - place.offset
    with open(place.path, "rb") as file:
        window: Any = _Window(file, place.offset, size)
        try:
            with tarfile.open(fileobj=window, mode="r:") as archive:
                for entry in archive:
                    if entry.isfile() and entry.offset_data + entry.size <= size:
                        yield Member(entry.name, place.offset + entry.offset_data, entry.size)
                window.seek(archive.offset)
        except tarfile.TarError as error:
            raise Damaged(f"is damaged or cut off ({error})") from error
        # A cut between two files is no error to `tarfile`.
        if window.read(_BLOCK) != bytes(_BLOCK):
            raise Damaged("is cut off (it has no end mark)")


@functools.lru_cache(maxsize=4)
def _open_zip(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def zip_names(path: str) -> list[str]:
    """The files of a zip.

    Raises:
      UserError: it is no zip or cut off.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(
            f"--source: {path} is damaged or cut off ({error}); download it again"
        ) from error


def read(place: Place) -> bytes:
    """The bytes of a file.

    Raises:
      Damaged: they cannot be read.
    """
    try:
        if place.member:
            return _open_zip(place.path).read(place.member)
        with open(place.path, "rb") as file:
            file.seek(place.offset)
            data = file.read(place.size)
    except OSError as error:
        raise Damaged(f"cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise Damaged(f"is damaged in its archive ({error})") from error
    if place.size >= 0 and len(data) < place.size:
        raise Damaged("is cut off with its archive")
    return data
