"""What a program does before its imports, which take seconds and much memory."""

import gc
import os
import resource
import sys
from types import TracebackType

from unnas_jax.core import failures, stopping

# What the imports alone need (measured with jax 0.10.2 on x86-64 Linux: 4.1 GB and 0.77 GB). With
# less they crash, or the system kills the process silently.
_ADDRESSES, _MEMORY = 4 << 30, 700 << 20

_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def _container_limit() -> int:
    """The memory that this container or job may use, in bytes."""
    for path in _CONTAINER:
        try:
            with open(path, encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError):  # Absent in this version of the kernel, or "max".
            continue
    return sys.maxsize


def why_too_small() -> str:
    """Why the limits of this process leave too little memory for the imports; '' if they do not."""
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    for limit, needed, name in (
        (addresses, _ADDRESSES, "address space (ulimit -v)"),
        (_container_limit(), _MEMORY, "memory of this container or job"),
    ):
        if 0 <= limit < needed:
            return (
                f"the {name} is limited to {limit / 2**30:.2f} GiB, and the imports alone need "
                f"{needed / 2**30:.2f}; raise the limit"
            )
    return ""


def _say(text: str) -> None:
    print(f"unnas_jax: {text}", file=sys.stderr, flush=True)


def imported() -> None:
    """To be called after the imports of a program that `begin` began; elsewhere it does nothing.

    What they made stays until the end, so that no collection of garbage need look at it again.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def begin() -> None:
    """Receives signals from now on; too little memory to import ends the program in one line.

    Imports leave little garbage: none is collected until they are done, see `imported`.
    """
    gc.disable()
    stopping.watch()
    reason = why_too_small()
    if reason:
        _say(reason)
        sys.exit(2)
    before = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not failures.is_out_of_memory(error):
            before(kind, error, trace)
            return
        _say(f"too little memory to start ({failures.first_line(error)}); free some and try again")
        os._exit(os.EX_TEMPFAIL)

    sys.excepthook = tell
