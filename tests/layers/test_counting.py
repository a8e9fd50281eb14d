"""Counts of any module: by hand, and against parameters that JAX makes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from unnas_jax.core import sharding
from unnas_jax.layers import blocks as layers
from unnas_jax.layers import counting


def image(*size: int) -> Any:
    return jax.ShapeDtypeStruct((1, *size), jnp.float32)


class Products(nn.Module):
    """A strided, dilated, grouped convolution, a transposed one, and a product within a jit."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(
            12,
            (3, 3),
            strides=2,
            padding=((2, 2), (2, 2)),
            kernel_dilation=2,
            feature_group_count=4,
            name="conv",
        )(x)
        x = nn.ConvTranspose(12, (2, 2), strides=(2, 2), use_bias=False, name="transposed")(x)
        matrix = self.param("matrix", nn.initializers.ones, (12, 5))
        return jax.jit(lambda x: jnp.einsum("nhwc,cd->nhwd", x, matrix))(nn.relu(x))


def test_convolutions_and_products_by_hand() -> None:
    counts = counting.count(Products(), image(9, 9, 8))
    assert counts.layers == (
        counting.Layer("", 12 * 5, 100 * 12 * 5),
        # 5x5 pixels of 12 channels, each from 3x3 pixels of 2 channels, and a bias.
        counting.Layer("conv", 12 * 9 * 2 + 12, 25 * 12 * 9 * 2),
        # Each of them gives a share to 2x2 pixels.
        counting.Layer("transposed", 12 * 4 * 12, 25 * 12 * 4 * 12),
    )


class Shared(nn.Module):
    """One layer twice, a stack of three by scan, one of two kept by checkpoints."""

    def setup(self) -> None:
        self.twice = nn.Dense(6, use_bias=False)
        self.embedding = nn.Embed(11, 6)

    @nn.compact
    def __call__(self, tokens: jax.Array, train: bool) -> jax.Array:
        x = self.twice(self.twice(self.embedding(tokens)))

        def step(layer: nn.Module, x: jax.Array) -> tuple[jax.Array, None]:
            return layer(x), None

        stack = nn.scan(step, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = stack(nn.Dense(6, use_bias=False, name="stack"), x)
        for k in range(2):
            x = nn.remat(nn.Dense)(6, use_bias=False, name=f"kept_{k}")(x)
        x = nn.MultiHeadDotProductAttention(2, use_bias=False, name="attention")(x, x)
        return self.embedding.attend(nn.Dropout(0.5)(x, deterministic=not train))


@pytest.mark.parametrize("train", [False, True])
def test_any_module_counts(train: bool) -> None:
    tokens = jax.ShapeDtypeStruct((1, 7), jnp.int32)
    counts = counting.count(Shared(), tokens, train=train)
    found: dict[str, list[int]] = {}
    for layer in counts.layers:
        row = found.setdefault(layer.name.split("/")[0], [0, 0])
        row[0] += layer.parameters
        row[1] += layer.multiply_adds
    products = 7 * 36  # Of a 6x6 matrix for every token.
    # Queries, keys, values and outputs; every pair of tokens compared and mixed.
    attention = [4 * 36, 4 * products + 2 * 7 * 7 * 6]
    assert found == {
        "twice": [36, 2 * products],
        "stack": [3 * 36, 3 * products],
        "kept_0": [36, products],
        "kept_1": [36, products],
        "attention": attention,
        "embedding": [11 * 6, 7 * 6 * 11],
    }
    variables = jax.eval_shape(lambda x: Shared().init(jax.random.key(0), x, train=False), tokens)
    assert counts.parameters == counting.parameters(variables["params"])


@jax.custom_vjp
def _scaled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


_scaled.defvjp(
    lambda x, kernel: (x @ kernel, (x, kernel)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g)
)


class Chosen(nn.Module):
    """A product with a gradient of its own, then one of two branches."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.ones, (4, 4))
        x = _scaled(x, kernel)
        return jax.lax.cond(x.sum() > 0, lambda x: x @ kernel @ kernel, lambda x: x @ kernel, x)


def test_own_gradients_and_branches() -> None:
    (layer,) = counting.count(Chosen(), jax.ShapeDtypeStruct((3, 4), jnp.float32)).layers
    assert layer == counting.Layer("", 16, 3 * 3 * 16)


class Small(nn.Module):
    """A depthwise convolution of few pixels, which a CPU computes as a large matrix product."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return layers.Conv(6, (3, 3), groups=6)(x)


def test_what_is_counted_does_not_depend_on_how_this_machine_computes_it() -> None:
    assert counting.count(Small(), image(4, 4, 6)).multiply_adds == 16 * 9 * 6
    # Nor on what it is asked to trace for.
    mesh = jax.sharding.AbstractMesh(
        (4,), ("data",), abstract_device=jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu")
    )
    with jax.sharding.use_abstract_mesh(mesh):
        assert counting.count(Small(), image(5, 4, 6)).multiply_adds == 20 * 9 * 6
        assert sharding.platform() == "tpu"


def test_parameters_of_a_tree() -> None:
    shapes = {
        "a": jax.ShapeDtypeStruct((3, 4), jnp.float32),
        "b": {"c": jnp.zeros(5), "d": jnp.ones(())},
    }
    assert counting.parameters(shapes) == 18
