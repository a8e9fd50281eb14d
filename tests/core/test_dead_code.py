"""What a result does not need is not computed, and the result keeps its bits."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.core import compilation, dead_code
from unnas_jax.layers import blocks


class Wasteful(nn.Module):
    """Draws weights of all kinds, and computes of them what no weight needs."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        a = self.param("uniform", blocks.uniform_fan_in(9), (5, 7))
        b = self.param("normal", nn.initializers.lecun_normal(), (7, 3))
        c = self.param("ones", nn.initializers.ones, (3,), jnp.float16)
        self.variable("batch_stats", "mean", jnp.zeros, (3,), jnp.float32)
        refused = jax.pure_callback(self.refuse, jax.ShapeDtypeStruct((3,), jnp.float32), b[0])
        return x @ (a @ b) * jnp.sum(c) * jnp.sum(refused)

    @staticmethod
    def refuse(_: Any) -> np.ndarray:
        raise AssertionError("computed")


def drawn(seed: Any) -> Any:
    key = jax.random.fold_in(jax.random.key(seed), 3)
    variables = Wasteful().init(key, jnp.ones((2, 5)))
    return {**variables, "seed": seed, "scaled": 2.0 * variables["params"]["normal"]}


def test_the_result_is_the_same_and_nothing_else_is_computed(monkeypatch: Any) -> None:
    draw = dead_code.without(drawn, np.int32(0))
    found = [draw(np.int32(seed)) for seed in (1, 2)]
    monkeypatch.setattr(Wasteful, "refuse", staticmethod(lambda row: np.zeros_like(row)))
    for seed, one in zip((1, 2), found, strict=True):
        expected = drawn(np.int32(seed))
        jax.tree.map(functools.partial(np.testing.assert_array_equal, strict=True), one, expected)


def test_weights_of_many_shapes_need_few_programs() -> None:
    def drawn(seed: Any) -> list[Any]:
        keys = [jax.random.fold_in(jax.random.key(seed), size) for size in range(20)]
        draws = [blocks.uniform_fan_in(9)(key, (size,)) for size, key in enumerate(keys)]
        return draws + [jnp.zeros(size) for size in range(20)]

    draw = dead_code.without(drawn, np.int32(0))
    with compilation.measured() as compiled:
        draw(np.int32(1))
    assert compiled.programs < 5  # Those of the keys.
