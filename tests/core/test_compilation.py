"""Compilations are counted while a block lasts, and not what was compiled before."""

import jax
import jax.numpy as jnp

from unnas_jax.core import compilation


def test_programs_are_counted_once() -> None:
    x = jnp.arange(3.0)
    double = jax.jit(lambda v: 2 * v + 1)
    with compilation.measured() as first:
        double(x).block_until_ready()
    assert first.programs == 1 and first.seconds > 0
    with compilation.measured() as again:
        double(x).block_until_ready()
    assert again.programs == 0 and again.seconds == 0
    jax.jit(lambda v: 3 * v)(x)
    assert first.programs == 1  # The block is over.
