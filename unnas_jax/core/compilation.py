"""How long XLA compiles: the hidden cost of many small networks."""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_CACHE_HIT = "/jax/compilation_cache/cache_hits"


@dataclasses.dataclass
class Compilation:
    """What a block compiled.

    Attributes:
      programs: how many, those of the persistent cache included.
      cache_hits: how many of them the persistent cache had.
      seconds: in the compiler or reading its cache, without the tracing in Python.
    """

    programs: int = 0
    cache_hits: int = 0
    seconds: float = 0.0


@contextlib.contextmanager
def measured() -> Iterator[Compilation]:
    """A block that counts the programs which this process compiles, in all its threads."""
    found = Compilation()

    def on_duration(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED:
            found.programs += 1
            found.seconds += duration_secs

    def on_event(event: str, **_: str | int) -> None:
        found.cache_hits += event == _CACHE_HIT

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)
