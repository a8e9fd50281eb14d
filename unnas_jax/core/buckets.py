"""Cloud Storage addresses, gs://BUCKET/NAME, in the place of paths.

Orbax and array_record read and write such addresses themselves. The other files of a run, which are
small and change in place as no object can, are kept in a directory of this machine and copied.
"""

import contextlib
import functools
import logging
import os
from collections.abc import Iterator

from etils import epath

from unnas_jax.core import extras
from unnas_jax.core.errors import UserError

_SCHEME = "gs://"


def is_address(path: str) -> bool:
    """Whether a path is an address, of whatever kind of store."""
    return "://" in path


@functools.cache
def _prepare_client() -> None:
    import fsspec

    # Another process may have written since this one listed the objects.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    # The library warns at every call if it may not ask for the kind of the bucket.
    logging.getLogger("gcsfs").setLevel(logging.ERROR)


def open_path(name: str, address: str) -> epath.Path:
    """The path object of an address.

    Args:
      name: of the setting, for messages.
      address: gs://BUCKET/NAME.

    Raises:
      UserError: it is of another store, or the client library is not installed.
    """
    if not address.startswith(_SCHEME) or not address.removeprefix(_SCHEME).strip("/"):
        raise UserError(f"{name} {address}: is of no known store; use gs://BUCKET/NAME or a path")
    extras.require("gcs", f"{name} {address}:")
    _prepare_client()
    return epath.Path(address)


def unreachable(name: str, address: str, error: BaseException) -> UserError:
    """The error to raise for any error at an address."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return UserError(
        f"{name} {address}: cannot be reached ({reason}); check its name and the rights of this "
        "machine (gcloud auth application-default login)"
    )


@contextlib.contextmanager
def reaching(name: str, address: str) -> Iterator[None]:
    """A block in which any error means that an address cannot be reached.

    Raises:
      UserError: in their place; it names the setting and the address.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # HTTP, credentials and the client raise many types.
        raise unreachable(name, address, error) from error


def read_text(address: str) -> str:
    """The content of an object.

    Raises:
      UserError: there is none, or it cannot be reached.
    """
    path = open_path("file", address)
    with reaching("file", address):
        return str(path.read_text())


class Mirror:
    """Small files in a directory of this machine and their copies below an address.

    Args:
      remote: the address.
      local: an existing directory.
      besides: names of entries of the address that are never copied.
    """

    def __init__(self, remote: epath.Path, local: str, besides: tuple[str, ...]) -> None:
        self._remote, self._local, self._besides = remote, local, besides
        self._sent: dict[str, tuple[int, int]] = {}

    def fetch(self) -> None:
        """Copies what is below the address to the directory."""
        if not self._remote.exists():
            return
        pending = [path for path in self._remote.iterdir() if path.name not in self._besides]
        while pending:
            path = pending.pop()
            if path.is_dir():
                pending.extend(path.iterdir())
                continue
            name = os.path.relpath(os.fspath(path), os.fspath(self._remote))
            target = os.path.join(self._local, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(path.read_bytes())
            self._sent[name] = self._version(target)

    def publish(self) -> None:
        """Copies to the address what has changed in the directory since the last time."""
        for folder, _, names in os.walk(self._local):
            for name in names:
                source = os.path.join(folder, name)
                relative = os.path.relpath(source, self._local)
                version = self._version(source)
                if self._sent.get(relative) == version:
                    continue
                with open(source, "rb") as file:
                    (self._remote / relative).write_bytes(file.read())
                self._sent[relative] = version

    @staticmethod
    def _version(path: str) -> tuple[int, int]:
        status = os.stat(path)
        return status.st_mtime_ns, status.st_size
