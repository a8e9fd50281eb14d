"""Small files that are never half-written."""

import contextlib
import fcntl
import json
import logging
import os
import secrets
from collections.abc import Iterator
from typing import IO, Any

from unnas_jax.core import buckets, reading
from unnas_jax.core.errors import UserError

_LOG = logging.getLogger("unnas_jax")


def check_mounted(name: str, path: str) -> None:
    """Raises `UserError` for the address of an object store where a path is needed.

    Locks, images in folders and files that change in place need a file system; the store's drivers
    (gcsfuse, s3fs, a Kubernetes CSI driver) can mount it as one.
    """
    if path.startswith("file://"):
        raise UserError(f"{name} {path}: give the path alone, {path.removeprefix('file://')}")
    if buckets.is_address(path):
        rest = path.partition("://")[2]
        raise UserError(
            f"{name} {path}: is not a path; mount {rest.split('/')[0]} (gs:// with gcsfuse, as "
            "launch/tpu_pod.sh --bucket does) and give the mounted path"
        )


def or_in(path: str, name: str) -> str:
    """A file's path, or that of the file `name` in it if it is a directory.

    Of an address, the ending alone tells whether it is a file.
    """
    path = os.path.expanduser(path)
    address = buckets.is_address(path)
    is_directory = not path.endswith(".json") if address else os.path.isdir(path)
    return os.path.join(path, name) if is_directory else path


@contextlib.contextmanager
def in_turn(path: str | os.PathLike[str]) -> Iterator[None]:
    """A block that processes with the same lock file enter one after the other."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a") as lock:  # Closing it, or the process's end, lets the next one in.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOG.info("Waiting for another process that holds %s, as long as it lives.", path)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def renamed(path: str | os.PathLike[str]) -> Iterator[str]:
    """A temporary name for a file, which replaces `path` in one step when the block ends.

    If the block fails the file is removed.
    """
    folder, name = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """`renamed` with the file open."""
    with (
        renamed(path) as temporary,
        open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file,
    ):
        yield file


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes indented JSON with a final newline, atomically."""
    with replacing(path) as file:
        json.dump(value, file, indent=1, allow_nan=False)
        file.write("\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file of this package's own, of any size and shape.

    Raises:
      OSError: it cannot be read.
      ValueError: it is damaged.
    """
    return reading.parse_json(reading.text(path, reading.LARGE))
