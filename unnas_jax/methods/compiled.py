"""Functions of a method, compiled once for all seeds: the seed is an argument of the program."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from unnas_jax.core import sharding
from unnas_jax.methods.base import SearchMethod


class Compiled:
    """A function whose draws come from a method, compiled when it is first called.

    Searches that differ in the seed alone have the same program, and so share an entry of the
    persistent cache.

    Args:
      method: from which draws come.
      function: called as function(method, *arguments, **named), where the method's `seed` is being
        traced. What draws must be reached through this method: another one's seed is a constant.
      options: of `jax.jit`; numbers of arguments do not count the method.
    """

    def __init__(self, method: SearchMethod, function: Callable[..., Any], **options: Any) -> None:
        def run(*arguments: Any, seed: jax.Array, **named: Any) -> Any:
            return function(method.with_seed(seed), *arguments, **named)

        run.__name__ = getattr(function, "__name__", "run")
        self._method = method
        everywhere = sharding.replicated(method.setting.mesh)
        self._program = jax.jit(run, out_shardings=everywhere, **options)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Runs the program; the arguments are on the devices of the method's mesh."""
        return self._program(*arguments, seed=self._seed, **named)

    def lower(self, *arguments: Any, **named: Any) -> jax.stages.Lowered:
        """The program before it is compiled, for arguments or their shapes."""
        shape = jax.ShapeDtypeStruct((), np.int32)
        seed = self._method.replicated(shape)
        lowered: jax.stages.Lowered = self._program.lower(*arguments, seed=seed, **named)
        return lowered

    @functools.cached_property
    def _seed(self) -> jax.Array:
        # The bits that count where JAX makes a key of a Python integer.
        low = np.asarray(self._method.setting.config.seed & 0xFFFFFFFF, np.uint32)
        seed: jax.Array = self._method.placed(low.astype(np.int32))
        return seed
