"""One run at a time in a workdir: its owner, the owner's host, and whether it still lives.

The owner of a directory holds a lock on its `running.json`, which the operating system releases
when the process ends, however it ends. That settles it on one machine and on file systems that
carry locks from one machine to another (NFS, Lustre with -o flock, ...). Others (gcsfuse, NFS with
nolock) and buckets have none: there the owner counts up a beat in the file, and a newcomer that
finds another machine's name watches it for some beats. Two that start within the same seconds on
two such machines both see nothing and both go on: that is not noticed.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

from unnas_jax.core import buckets
from unnas_jax.core.errors import UserError
from unnas_jax.core.logs import telling

FILE = "running.json"

_BEAT_S = 10.0
_WATCH_S = 35.0
_LOOK_S = 1.0

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def _machine() -> str:
    """A name of this machine that no other has, until it is started again."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return socket.gethostname()


class _Place(Protocol):
    """The place where the owner of a workdir is written."""

    def read(self) -> bytes: ...

    def write(self, content: bytes) -> None: ...

    def close(self, *, remove: bool) -> None: ...


class _File:
    """A locked file.

    Raises:
      BlockingIOError: another process has the lock.
      OSError: the file cannot be made.
    """

    def __init__(self, path: str) -> None:
        self.path, self.locked = path, True
        while True:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    os.close(self._descriptor)
                    raise
                self.locked = False
            # The last owner may have removed it meanwhile: a lock on it is then of no use.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(self._descriptor)):
                    return
            os.close(self._descriptor)

    def read(self) -> bytes:
        # Opened again by name: file systems shared by machines then look again.
        with open(self.path, "rb") as file:
            return file.read()

    def write(self, content: bytes) -> None:
        os.ftruncate(self._descriptor, len(content))
        os.pwrite(self._descriptor, content, 0)
        os.fsync(self._descriptor)

    def close(self, *, remove: bool) -> None:
        with contextlib.suppress(OSError):  # The whole workdir may have been removed.
            if remove and os.path.samestat(os.stat(self.path), os.fstat(self._descriptor)):
                os.unlink(self.path)
        os.close(self._descriptor)


class _Object:
    """An object of a bucket, which knows no locks."""

    locked = False

    def __init__(self, address: str) -> None:
        self._path = buckets.open_path("workdir", address) / FILE

    def read(self) -> bytes:
        return bytes(self._path.read_bytes()) if self._path.exists() else b""

    def write(self, content: bytes) -> None:
        self._path.write_bytes(content)

    def close(self, *, remove: bool) -> None:
        with contextlib.suppress(Exception):  # Many types; the next owner then watches it.
            if remove:
                self._path.unlink()


def _owner(content: bytes) -> dict[str, Any] | None:
    """The owner that wrote the content of a file; None if it is not complete."""
    try:
        owner = json.loads(content)
        return {key: owner[key] for key in ("host", "process", "machine", "since", "beat")}
    except (ValueError, KeyError, TypeError):
        return None


def _refusal(name: str, owner: dict[str, Any] | None) -> UserError:
    who = "another process"
    if owner is not None:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner["since"]))
        who = f"process {owner['process']} on host {owner['host']}, since {began}"
    return UserError(
        f"workdir {name} is in use by {who}; wait for it or stop it, or give another --workdir"
    )


def _watch(name: str, place: _Place, last: dict[str, Any]) -> None:
    """Raises `UserError` if the owner in the file gives a sign of life."""
    what = (
        f"The workdir {name} was last used by process {last['process']} on host {last['host']}, "
        f"which left no word of its end: watching it for {_WATCH_S:.0f} s"
    )
    end = time.monotonic() + _WATCH_S
    with telling(what):
        while time.monotonic() < end:
            time.sleep(_LOOK_S)
            now = _owner(place.read())
            if now is not None and now != last:
                raise _refusal(name, now)


@contextlib.contextmanager
def held(name: str, directory: str) -> Iterator[None]:
    """A block in which this process alone owns a workdir.

    Args:
      name: of the workdir, for messages.
      directory: an existing one, or an address gs://BUCKET/NAME.

    Raises:
      UserError: another process has it; names it and its host.
      OSError: the directory cannot be written.
    """
    path = os.path.join(directory, FILE)
    place: _File | _Object
    if buckets.is_address(directory):
        place = _Object(directory)
    else:
        try:
            place = _File(path)
        except BlockingIOError as error:
            with contextlib.suppress(OSError), open(path, "rb") as file:
                raise _refusal(name, _owner(file.read())) from error
            raise _refusal(name, None) from error
    me: dict[str, Any] = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "machine": _machine(),
        "since": time.time(),
    }

    def content(beat: int) -> bytes:
        # Always of the same length: a reader never sees half of it.
        return json.dumps({**me, "beat": f"{beat:012d}"}).encode() + b"\n"

    ended = threading.Event()

    def beat() -> None:
        count = 0
        while not ended.wait(_BEAT_S):
            count += 1
            with contextlib.suppress(Exception):  # The run itself says what is wrong.
                place.write(content(count))

    mine = False
    try:
        last = _owner(place.read())
        if last is not None and not (place.locked and last["machine"] == me["machine"]):
            _watch(name, place, last)
        place.write(content(0))
        mine = True
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
    finally:
        place.close(remove=mine)
