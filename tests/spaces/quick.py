"""Programs that are compiled quickly and run slowly: a test runs most of them once."""

from collections.abc import Callable
from typing import Any

import jax

_OPTIONS = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def jit(function: Callable[..., Any]) -> Any:
    return jax.jit(function, compiler_options=_OPTIONS)
