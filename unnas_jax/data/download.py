"""Fetches a published file: goes on where it broke off, and compares it with its checksum."""

import contextlib
import dataclasses
import hashlib
import http
import http.client
import logging
import os
import time
import urllib.error
import urllib.request

from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.data import jobs

_LOG = logging.getLogger("unnas_jax")
_BLOCK = 2**20
_TIMEOUT = 30.0  # Seconds without a byte.
_TRIES = 5
_PAUSE = 1.0  # Seconds before the second try; twice as many before each further one.


@dataclasses.dataclass(frozen=True)
class Published:
    """A file as it was published.

    Attributes:
      url: where it is.
      sha256: its checksum, in hexadecimal.
    """

    url: str
    sha256: str


def fetch(published: Published, folder: str, url: str = "") -> str:
    """The path of a published file below `folder`, which is fetched unless it is there.

    What came before a kill or a lost connection stays in NAME.part, and the next call continues
    it. Proxies are those of HTTPS_PROXY and HTTP_PROXY.

    Args:
      published: the file.
      folder: where to keep it.
      url: a mirror's address of the same file; '' for the published one.

    Raises:
      UserError: it cannot be reached or written, or is not the published file.
    """
    url = url or published.url
    path = os.path.join(folder, published.url.rsplit("/", 1)[-1])
    part = f"{path}.part"
    advice = (
        "behind a proxy set HTTPS_PROXY, from a mirror use --url=ADDRESS; without a network fetch "
        "the file elsewhere and name it with --source=FILE"
    )
    if not url.startswith(("https://", "http://")):
        raise UserError(f"--url={url!r}: is no address; give one with https://")
    try:
        os.makedirs(folder, exist_ok=True)
        with files.in_turn(f"{path}.lock"):
            if os.path.exists(path) and _sha256(path) == published.sha256:
                return path
            _fetch(url, part, advice)
            found = _sha256(part)
            if found != published.sha256:
                os.unlink(part)
                raise UserError(
                    f"{url}: is not the published file (SHA-256 {found[:12]}..., published "
                    f"{published.sha256[:12]}...), and was removed; try again, or {advice}"
                )
            os.replace(part, path)
            return path
    except OSError as error:
        raise UserError(
            f"--data_dir: cannot write below {folder} ({error.strerror or error}); name a "
            "directory with enough space"
        ) from error


class _Lost(Exception):
    """The connection broke; the message says why."""


def _fetch(url: str, part: str, advice: str) -> None:
    """Fetches what `part` lacks; tries again when the connection is lost after some of it came."""
    first = before = _size(part)
    tries = 0
    while True:
        try:
            return _continue(url, part)
        except (_Lost, urllib.error.URLError, http.client.HTTPException) as error:
            now = _size(part)
            tries = 0 if now > before else tries + 1
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if refused or now == first or tries == _TRIES:
                kept = f"; the same command continues after the {now:,} bytes that came" * (now > 0)
                raise UserError(
                    f"{url}: cannot be fetched ({_why(error)}){kept}; {advice}"
                ) from error
            _LOG.info("%s: %s; going on after %s bytes.", url, _why(error), f"{now:,}")
            before = now
        time.sleep(_PAUSE * 2**tries)


def _continue(url: str, part: str) -> None:
    """Appends to `part` what it lacks of a file; all of it if the server cannot begin midway."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return  # All of it is there, or it is another file, which its checksum tells.
        raise
    except TimeoutError as error:
        raise _Lost(f"no answer in {_TIMEOUT:.0f} s") from error
    with contextlib.closing(response):
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0
        length = response.headers.get("Content-Length") or ""
        total = start + int(length) if length.isdigit() else 0
        progress = jobs.Progress("fetching, bytes", total, start)
        with open(part, "ab" if start else "wb") as file:
            while block := _read(response):
                file.write(block)
                progress.add(len(block))
        progress.end()
    if _size(part) < total:
        raise _Lost(f"{total - _size(part):,} bytes are missing")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _Lost(_why(error)) from error


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return " ".join(str(reason).split()) or type(error).__name__


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
