"""The memory of programs that compute on CPUs.

XLA asks for all the memory of a program whenever it runs, and gives it back at its end. The C
library hands pieces of that size back to the system, which clears each page of them again at the
next step: a quarter of the processor time of a small network's step (docs/scaling.md). Kept, what
one step frees is there for the next.

glibc reads how it is to do that from GLIBC_TUNABLES, as a process starts; other C libraries do not
know the variable. Sweeps on CPUs set it for their workers, `launch/local.sh` for a run without a
GPU, both unless it is set already, be it to nothing. In a shell of one's own:

    export GLIBC_TUNABLES=$(python -m unnas_jax.core.memory)
"""

import os

VARIABLE = "GLIBC_TUNABLES"

TUNABLES = ":".join(
    (
        # Large pieces come from the heap, which stays as it is and grows by 64 MB at least.
        "glibc.malloc.mmap_max=0",
        f"glibc.malloc.trim_threshold={1 << 40}",
        f"glibc.malloc.top_pad={64 << 20}",
        # Threads keep no small pieces back: XLA asks for aligned memory, glibc cuts some bytes off
        # both ends, and a thread that kept these would leave a hole in which the same piece no
        # longer fits, step by step.
        "glibc.malloc.tcache_count=0",
    )
)
"""The value of `VARIABLE` with which a process keeps what it frees."""


def not_inherited() -> None:
    """Takes `TUNABLES` from the environment: this process has read them.

    Those that it starts, which decode images, then give back what they free.
    """
    if os.environ.get(VARIABLE) == TUNABLES:
        del os.environ[VARIABLE]


def dispatch_at_once() -> None:
    """Lets a program for CPUs begin in the thread that calls it; before JAX has looked for devices.

    That thread asks for the program's memory, and of a process only the main thread's can grow to
    any size in one piece.
    """
    import jax  # Here alone: `launch/local.sh` asks this module before anything else.

    jax.config.update("jax_cpu_enable_async_dispatch", False)


if __name__ == "__main__":
    print(TUNABLES)
