"""Published files of datasets: in folders, tar archives, tar archives in these, zips.

Sizes that a header states, and to which a small file unpacks, are compared with limits first.
"""

import functools
import gzip
import lzma
import os
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from unnas_jax.core.errors import UserError

_BLOCK = 512  # Bytes of a block; a tar archive ends with two blocks of zeros.

MAX_BYTES = 2**28
"""Bytes of an unpacked file of a dataset: more than published ones have."""
_HEADER_BYTES = 2**20  # Bytes before a file in a tar archive; a name has some hundred.
_UNPACKED_BYTES = 2**28  # Bytes of a whole compressed archive, unpacked; CIFAR-10 has 0.18 GB.

# Errors on opening a zip and unpacking a file, among them for encryption and unknown compressions.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
)


class Place(NamedTuple):
    """The place of a file's bytes. It survives JSON as a list.

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

    @property
    def name(self) -> str:
        """The path of the file, with its folders, if it is not part of a tar archive."""
        return self.member or self.path

    def __str__(self) -> str:
        inside = f" in {self.path}"
        return self.member + inside if self.member else self.path


class Damaged(Exception):
    """Files cannot be read, or an archive ends too early; the message is what follows its name."""


def unusable_name(name: str) -> str:
    """Why the name of a class or file cannot be kept in a list with one a line; '' if it can."""
    for character in name:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            return f"has {character!a} in its name"
    return ""


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
        if count > _HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {count:,} bytes")
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
        except (tarfile.TarError, ValueError, RecursionError) as error:
            raise Damaged(f"is damaged or cut off ({_line(error)})") from error
        # A cut between two files is no error to `tarfile`.
        if window.read(_BLOCK) != bytes(_BLOCK):
            raise Damaged("is cut off (it has no end mark)")


class _Unpacking:
    """A compressed file, read forward; an error once it has unpacked to too much."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._position = file, 0

    def read(self, count: int) -> bytes:
        self._position += count
        if count > MAX_BYTES or self._position > _UNPACKED_BYTES:
            raise tarfile.ReadError(f"unpacks to more than {_UNPACKED_BYTES:,} bytes")
        return self._file.read(count)


def tar_files(path: str, names: tuple[str, ...]) -> list[bytes]:
    """The contents of some files of an archive, which may be compressed with gzip.

    Raises:
      Damaged: it cannot be read, lacks one of them, or unpacks to more than a dataset would.
    """
    found: dict[str, bytes] = {}
    try:
        with open(path, "rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        opener: Any = gzip.open if compressed else open
        with opener(path, "rb") as opened:
            forward: Any = _Unpacking(opened)
            with tarfile.open(fileobj=forward, mode="r|") as archive:
                for entry in archive:
                    if entry.name in names and entry.isfile() and entry.size <= MAX_BYTES:
                        member = archive.extractfile(entry)
                        found[entry.name] = member.read() if member else b""
                    if len(found) == len(names):
                        break
    except (OSError, tarfile.TarError, zlib.error, EOFError, ValueError, RecursionError) as error:
        raise Damaged(f"is damaged or cut off ({_line(error)})") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise Damaged(f"lacks {missing[0]}")
    return [found[name] for name in names]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


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
    except (OSError, *_ZIP_ERRORS) as error:
        raise UserError(
            f"--source: {path} is damaged or cut off ({_line(error)}); download it again"
        ) from error


def read(place: Place) -> bytes:
    """The bytes of a file.

    Raises:
      Damaged: they cannot be read, or are more than an image may have.
    """
    try:
        if place.member:
            return _read_zip(place)
        with open(place.path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Damaged("is no regular file")
            size = place.size if place.size >= 0 else status.st_size - place.offset
            _check_size(size)
            file.seek(place.offset)
            data = file.read(size)
    except OSError as error:
        raise Damaged(f"cannot be read ({error.strerror or error})") from error
    if len(data) < size:
        raise Damaged("is cut off with its archive")
    return data


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise Damaged(f"has {size:,} bytes, more than {MAX_BYTES:,}")


def _read_zip(place: Place) -> bytes:
    try:
        archive = _open_zip(place.path)
        entry = archive.getinfo(place.member)
        _check_size(entry.file_size)
        with archive.open(entry) as file:
            return file.read(entry.file_size)
    except KeyError as error:
        raise Damaged("is not in its archive") from error
    except _ZIP_ERRORS as error:
        raise Damaged(f"is damaged in its archive ({_line(error)})") from error
