"""Tells what an error of the system or of a library means: no memory, no space, no network, damage.

Libraries report the system's errors in exceptions of their own, so the text counts as much as the
type, and the errors that caused an error as much as itself.
"""

import errno
import resource
import sys
from collections.abc import Iterator

from unnas_jax.core.errors import Interruption, UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = ("No space left on device", "Disk quota exceeded", "File too large")

_MEMORY = (errno.ENOMEM,)
_MEMORY_WORDS = (
    *("RESOURCE_EXHAUSTED", "out of memory", "Out of memory", "Cannot allocate memory"),
    *("bad_alloc", "failed to map segment", "can't start new thread"),
)

_FILES = (errno.EMFILE, errno.ENFILE)
_FILES_WORDS = ("Too many open files",)

# Errors that may be gone the next time: disks, file servers, networks, rights, threads.
_PASSING = (
    *(errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ENOLCK, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED),
    *(errno.ECONNABORTED, errno.EPIPE, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN),
    *(errno.ENOTCONN, errno.EREMOTEIO),
)
_PASSING_WORDS = (
    *("UNAVAILABLE", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "UNAUTHENTICATED", "ABORTED"),
    *("CANCELLED", "Input/output error", "Permission denied", "Operation not permitted"),
    *("Stale file handle", "Read-only file system", "Connection re", "timed out"),
    "Resource temporarily unavailable",
)

# Errors on reading a damaged file: those of Python's parsers, JSON and Orbax, and ValueError, which
# TensorStore raises for most of its errors.
_OF_DAMAGE = (ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError)
_OF_ABSENCE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


# Libraries hang or abort where there is less memory than their threads need.
_ADDRESSES = 64 << 20


def _addresses_left() -> int:
    """Bytes that this process may still map (ulimit -v); a huge number if nothing limits them."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return limit - int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # Not on Linux.
        return sys.maxsize


def require_addresses(what: str) -> None:
    """Raises `Interruption`, which begins with `what`, if hardly any memory can be mapped."""
    left = _addresses_left()
    if left < _ADDRESSES:
        raise Interruption(
            f"{what}, {left >> 20} MiB of the address space (ulimit -v) are left; nothing was "
            "changed, raise the limit and run the same command again"
        )


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that caused it."""
    seen = set[int]()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            for part in cause.exceptions:
                yield from chain(part)
        cause = cause.__cause__ or cause.__context__


def first_line(error: BaseException) -> str:
    """An error in at most 200 characters of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _has(error: BaseException, numbers: tuple[int, ...], words: tuple[str, ...]) -> bool:
    for cause in chain(error):
        if isinstance(cause, OSError) and cause.errno in numbers:
            return True
        if any(word in str(cause) for word in words):
            return True
    return False


def is_full_disk(error: BaseException) -> bool:
    """Whether there is no space left, or no more is allowed."""
    return _has(error, _FULL, _FULL_WORDS)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this machine or a device has no memory left."""
    if is_out_of_files(error):
        return False  # TensorStore calls that RESOURCE_EXHAUSTED, too.
    memory = any(isinstance(cause, MemoryError) for cause in chain(error))
    return memory or _has(error, _MEMORY, _MEMORY_WORDS)


def is_out_of_files(error: BaseException) -> bool:
    """Whether this process may not open more files."""
    return _has(error, _FILES, _FILES_WORDS)


def is_passing(error: BaseException) -> bool:
    """Whether it may succeed another time: lack of memory, space, descriptors, rights, network."""
    return (
        is_full_disk(error)
        or is_out_of_memory(error)
        or is_out_of_files(error)
        or _has(error, _PASSING, _PASSING_WORDS)
    )


def is_damage(error: BaseException) -> bool:
    """Whether a file does not hold what was written to it, so that reading it again is no use."""
    known = isinstance(error, (*_OF_DAMAGE, *_OF_ABSENCE))
    return known and not is_passing(error)


def is_absence(error: BaseException) -> bool:
    """Whether a file or directory is not there."""
    return _has(error, (errno.ENOENT,), ("NOT_FOUND", "No such file or directory"))


def explanation(error: BaseException, kept: str = "") -> UserError | Interruption | None:
    """The one line that an error of the system deserves; None for an error of the program.

    Args:
      error: any.
      kept: what is not lost, as the continuation of a sentence; "" if there was nothing to keep.
    """
    reason, kept = first_line(error), f"; {kept}" if kept else ""
    if is_full_disk(error):
        return UserError(
            f"the disk is full ({reason}){kept}: make space and run the same command again"
        )
    if is_out_of_files(error):
        return Interruption(
            f"too many files are open ({reason}){kept}: raise the limit (ulimit -n 65536) or lower "
            "config.workers, and run the same command again"
        )
    if is_out_of_memory(error):
        return UserError(
            f"out of memory ({reason}){kept}: lower config.train.batch_size, "
            "config.eval.batch_size or config.workers; a search also needs less with "
            "config.search.rematerialise=cell, a training with config.train.seeds_together=1"
        )
    if any(isinstance(cause, OSError) and cause.errno in _PASSING for cause in chain(error)):
        return Interruption(f"{reason}{kept}: the same command tries again")
    return None
