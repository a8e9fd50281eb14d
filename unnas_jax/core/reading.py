"""Reads files that anybody may have written: with bounded cost, and one line for what is wrong.

Sizes are checked before anything is read, headers before anything is allocated, types before
anything is computed. Only regular files are opened: a pipe would wait for ever.
"""

import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

from unnas_jax.core import buckets
from unnas_jax.core.errors import UserError

SMALL = 2 * 2**20
"""Bytes of a file that describes one thing: a config, a genotype, a result."""

LARGE = 2**30
"""Bytes of a file that grows: rows of a log, names of a dataset."""

_LINE = 2**20  # Bytes of a line of JSON lines.
_DEPTH = 40  # Depth of nested brackets.
_LARGEST = 2.0**127  # The largest float, as in float32; beyond it drawing overflows.
_DIRECTORY = 2**16  # Bytes of the table of a zip's members; each member costs time.


def shown(value: Any) -> str:
    """A value for a message: its text in Python, cut where it is long."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a huge number"  # Python may refuse to write the digits of a huge number.
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) < 80 else f"{text[:76]}..."


def reason(error: BaseException) -> str:
    """Why a file cannot be read, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return "it is no text"
    return str(error)[:200] or type(error).__name__


def opened(path: str | os.PathLike[str], limit: int) -> IO[bytes]:
    """A regular file, open for reading in binary.

    Raises:
      OSError: it cannot be opened.
      ValueError: it is a device, a pipe or a folder, or larger than `limit` bytes.
    """
    # Without O_NONBLOCK, opening a pipe would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if status.st_size > limit:
            raise ValueError(f"it has {status.st_size:,} bytes; at most {limit:,} make sense")
    except BaseException:
        file.close()
        raise
    return file


def text(path: str | os.PathLike[str], limit: int = SMALL) -> str:
    """The content of a text file in UTF-8, which may be an object of a bucket.

    Raises:
      OSError: it cannot be read.
      ValueError: it is too large, or no text.
    """
    if buckets.is_address(os.fspath(path)):
        content = buckets.read_text(os.fspath(path))
        if len(content) > limit:
            raise ValueError(f"it has {len(content):,} characters; at most {limit:,} make sense")
        return content
    with opened(path, limit) as file:
        # Some editors put a mark in front of UTF-8.
        return file.read().decode("utf-8-sig")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def parse_json(content: str | bytes) -> Any:
    """The value of a JSON text; raises `ValueError` for whatever is wrong with it."""
    try:
        return json.loads(content, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _check_values(value: Any) -> None:
    """Raises `ValueError` for a depth, numbers or texts that this package never writes."""
    level = [value]
    for _ in range(_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, int | float):
                if not abs(item) < (2**63 if isinstance(item, int) else _LARGEST):
                    raise ValueError("it has a number beyond all bounds")
            elif isinstance(item, str) and not item.isascii():
                item.encode()  # Half a pair of surrogates raises UnicodeEncodeError.
        if not below:
            return
        level = below
    raise ValueError("it is nested too deeply")


_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def check(value: Any, shape: Any, where: str = "it") -> None:
    """Raises `ValueError` unless a value has a shape.

    A shape is a type (`float` allows whole numbers), None, a list with the shape of all entries, a
    tuple of alternatives, `object` for anything, or a dict with the shape of every key that must
    be there, or may be if it ends in `?`; the key `str` stands for all keys that are not named.
    """
    if isinstance(shape, tuple):
        errors = []
        for alternative in shape:
            try:
                return check(value, alternative, where)
            except ValueError as error:
                errors.append(error)
        raise errors[0]
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise ValueError(f"{where} is {shown(value)}, not a list")
        for number, item in enumerate(value):
            check(item, shape[0], f"{where}[{number}]")
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {shown(value)}, not an object of keys")
        _check_keys(value, shape, "" if where == "it" else f"{where}.")
    elif shape is None:
        if value is not None:
            raise ValueError(f"{where} is {shown(value)}, not null")
    elif shape is not object:
        # In Python a bool is an int; here it is no number.
        kinds = {float: (int, float)}.get(shape, (shape,))
        if type(value) not in kinds:
            raise ValueError(f"{where} is {shown(value)}, not {_NAMES[shape]}")


def _check_keys(value: Mapping[str, Any], shape: Mapping[Any, Any], prefix: str) -> None:
    named = {key.removesuffix("?"): key for key in shape if key is not str}
    for name, key in named.items():
        if name in value:
            check(value[name], shape[key], prefix + name)
        elif name == key:
            raise ValueError(f"{prefix}{name} is missing")
    if str in shape:
        for name, item in value.items():
            if name not in named:
                check(item, shape[str], f"{prefix}{name[:40]}")


def check_document(value: Any, shape: Any) -> None:
    """Raises `ValueError` unless the value of a JSON text is of bounded depth and of a shape."""
    _check_values(value)
    check(value, shape)


def user_text(
    path: str | os.PathLike[str], what: str = "", limit: int = SMALL, kind: str = "text"
) -> str:
    """`text`, but whatever is wrong is a `UserError`.

    Args:
      path: of the file, or gs://BUCKET/NAME.
      what: the first word of the message.
      limit: of the file's bytes.
      kind: what the file should be.
    """
    start = f"{what}: " if what else ""
    try:
        return text(path, limit)
    except UnicodeDecodeError as error:
        raise UserError(f"{start}cannot read {os.fspath(path)}: it is not {kind}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{start}cannot read {os.fspath(path)}: {reason(error)}") from error


def document(
    path: str | os.PathLike[str],
    shape: Any,
    *,
    what: str = "",
    remedy: str = "",
    limit: int = SMALL,
    content: str | None = None,
) -> Any:
    """The value of a JSON file that has a shape, see `check`.

    Args:
      path: of the file, or gs://BUCKET/NAME.
      shape: of the value.
      what: what the file is, as the first word of messages.
      remedy: what to do if it is damaged.
      limit: of its bytes.
      content: the file's text, if it was read before.

    Raises:
      UserError: names the file, what is wrong with it, and the remedy.
    """
    name, advice = f"{what}: {os.fspath(path)}" if what else os.fspath(path), ""
    if remedy:
        advice = f"; {remedy}"
    if content is None:
        content = user_text(path, what, limit, "JSON")
    try:
        value = parse_json(content)
    except ValueError as error:
        raise UserError(f"{name} is not JSON ({reason(error)}){advice}") from error
    try:
        check_document(value, shape)
    except ValueError as error:
        raise UserError(f"{name} is damaged: {reason(error)}{advice}") from error
    return value


def lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a binary file; a line too long for any row comes in pieces."""
    while line := file.readline(_LINE):
        yield line


def _array(data: bytes, kinds: str) -> np.ndarray:
    """The array of an .npy file, of a NumPy kind that is among some letters."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its version is {version}")
    readers = (np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0)
    shape, fortran, dtype = readers[version[0] - 1](stream, max_header_size=4096)
    if dtype.kind not in kinds:
        raise ValueError(f"its values are of the type {dtype}"[:100])
    size = math.prod(shape) * dtype.itemsize
    rest = data[stream.tell() :]
    if any(side < 0 for side in shape) or size != len(rest):
        raise ValueError(f"its header promises {size:,} bytes, and {len(rest):,} follow")
    values = np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")
    if dtype.kind == "f" and not bool(np.isfinite(values).all()):
        raise ValueError("it has numbers that are not finite")
    return values.astype(dtype.newbyteorder("="))


def array(path: str | os.PathLike[str], kinds: str, limit: int) -> np.ndarray:
    """The array of an .npy file.

    Args:
      path: of the file.
      kinds: letters of the NumPy kinds that it may have.
      limit: of the file's bytes.

    Raises:
      OSError: it cannot be read.
      ValueError: it is damaged, or something else.
    """
    with opened(path, limit) as file:
        return _decoded(_array, file.read(), kinds)


def arrays(
    path: str | os.PathLike[str], kinds: Mapping[str, str] | str, limit: int
) -> dict[str, np.ndarray]:
    """Arrays of an .npz file.

    Args:
      path: of the file.
      kinds: their names, and letters of the NumPy kinds that each may have; or only the letters,
        for all arrays that are there.
      limit: of the file's bytes, and of those that it unpacks to.

    Raises:
      OSError: it cannot be read.
      ValueError: it is damaged, or something else.
    """
    with opened(path, limit) as file:
        return _decoded(_members, file.read(), kinds, limit)


def _members(data: bytes, kinds: Mapping[str, str] | str, limit: int) -> dict[str, np.ndarray]:
    end = data.rfind(b"PK\5\6", -(2**16 + 22))
    if end < 0 or int.from_bytes(data[end + 12 : end + 16], "little") > _DIRECTORY:
        raise ValueError("it is no zip archive of a few arrays")
    found = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if isinstance(kinds, str):
            kinds = {name.removesuffix(".npy"): kinds for name in archive.namelist()}
        for name, allowed in kinds.items():
            member = archive.getinfo(f"{name}.npy")
            limit -= member.file_size
            if limit < 0:
                raise ValueError("it unpacks to more than makes sense")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("its compression is of a kind that NumPy does not write")
            found[name] = _array(archive.read(member), allowed)
    return found


def _decoded(function: Any, *arguments: Any) -> Any:
    """What a function makes of bytes; `ValueError` for whatever a library raises for bad ones."""
    try:
        return function(*arguments)
    except ValueError:
        raise
    except Exception as error:  # zipfile, zlib, struct, tokenize and ast have a dozen types.
        raise ValueError(reason(error)) from error
