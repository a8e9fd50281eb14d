"""The memory of programs that compute on CPUs.

XLA asks for all the memory of a program whenever it runs, and gives it back at its end. The C
library hands pieces of that size back to the system, which clears each page of them again at the
next step: a quarter of the processor time of a small network's step (docs/scaling.md). Kept, what
one step frees is there for the next.
"""

import ctypes

import jax

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def dispatch_at_once() -> None:
    """Lets a program for CPUs begin in the thread that calls it; before JAX has looked for devices.

    That thread asks for the program's memory, and of a process only the main thread's can grow to
    any size in one piece.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def keep_freed() -> None:
    """Keeps what is freed from now on for this process; nothing where the C library is not glibc.

    What a process holds then stays at its peak.
    """
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    if change is not None:
        change(_MMAP_MAX, 0)
        change(_TRIM_THRESHOLD, 2**31 - 1)
        change(_TOP_PAD, 64 << 20)
