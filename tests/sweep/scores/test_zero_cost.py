"""Scores without labels against their closed forms."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.spaces.one_program import network201
from unnas_jax.core.errors import UserError
from unnas_jax.layers.blocks import batch_norm
from unnas_jax.spaces.nasbench201 import space, spec
from unnas_jax.sweep.scores import programs, relus, weights, zero_cost

RNG = np.random.default_rng(0)


class Linear(nn.Module):
    """Linear layers with batch norms between them."""

    sizes: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for k, size in enumerate(self.sizes):
            x = nn.Dense(size, use_bias=k == 0, dtype=self.dtype, name=f"layer_{k}")(x)
            if k < len(self.sizes) - 1:
                x = batch_norm(train=train, affine=True, dtype=self.dtype, name=f"bn_{k}")(x)
        return x


def fresh(network: nn.Module, x: jax.Array) -> dict[str, Any]:
    """Its variables, none of them special."""
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), x, True))
    flat, tree = jax.tree.flatten(variables)
    return jax.tree.unflatten(tree, [jnp.asarray(RNG.uniform(0.2, 2, v.shape)) for v in flat])


def test_synflow_of_linear_layers() -> None:
    """L * 1' |W_L| ... |W_1| 1, whatever signs, biases and batch norms there are."""
    network = Linear((5, 4, 3))
    variables = fresh(network, jnp.ones((2, 6)))
    for k in range(3):
        layer = variables["params"][f"layer_{k}"]
        layer["kernel"] = layer["kernel"] * jnp.asarray(RNG.choice([-1, 1], layer["kernel"].shape))
    got = zero_cost.synflow(zero_cost.applied(network), variables, jnp.zeros((7, 6)))
    flow = np.ones(6)
    for k in range(3):
        flow = flow @ np.abs(np.asarray(variables["params"][f"layer_{k}"]["kernel"], np.float64))
    assert float(got) == pytest.approx(3 * flow.sum(), rel=1e-4)


class Rectified(nn.Module):
    """Two layers of rectifiers, in a branch and in a loop as well."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.relu(x)
        y = jax.lax.cond(jnp.sum(x) > -1, lambda x: nn.relu(1 - x), lambda x: x, x)
        return jax.lax.scan(lambda carry, shift: (nn.relu(carry - shift), carry), y, jnp.ones(2))[0]


def test_every_rectifier_is_visited() -> None:
    """Of 0.5: 0.5 and 1 - 0.5 are on, -0.5 and -1 off. Of -1: -1 off, 1 on, 0 and -1 off."""
    x = jnp.array([[0.5], [-1.0]])
    network = Rectified()
    count = relus.visited(lambda x: network.apply({}, x, True), lambda x: jnp.sum(x > 0, axis=1))
    assert jax.jit(count)(x).tolist() == count(x).tolist() == [2, 1]


def test_a_function_without_rectifiers_is_told() -> None:
    with pytest.raises(UserError, match="no rectifier"):
        relus.visited(lambda x: x * 2, jnp.sum)(jnp.ones(3))


class Codes(nn.Module):
    """Rectifiers of the inputs themselves."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.relu(x)


def test_naswot_of_two_codes() -> None:
    """0011 and 0001 agree in three of four: |4 3; 3 4| = 7."""
    x = jnp.array([[-1.0, -1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, 1.0]])
    got = zero_cost.naswot(zero_cost.applied(Codes()), {}, x)
    assert float(got) == pytest.approx(np.log(7), rel=1e-5)
    assert float(zero_cost.naswot(zero_cost.applied(Codes()), {}, x[:1].repeat(2, 0))) == -np.inf


def test_jacob_cov_of_known_correlations() -> None:
    """N uncorrelated rows: -N; two equal ones: -99989.68 (to float32's rounding of 1e-5)."""
    rows = jnp.array([[1.0, -1, 0, 0], [0, 0, 1, -1]])
    assert float(zero_cost.correlation_score(rows)) == pytest.approx(-2, abs=1e-4)
    with jax.enable_x64(True):
        equal = jnp.asarray(np.array([[1.0, -1, 0, 0]] * 2))
        assert float(zero_cost.correlation_score(equal)) == pytest.approx(-99989.68, abs=0.02)
    # A network that does not look at the images is as bad as one to which all are equal.
    assert float(zero_cost.correlation_score(jnp.zeros((2, 4)))) == pytest.approx(-1e5, rel=1e-2)


class Squares(nn.Module):
    """A network whose gradient is known: 2 w x."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(1, use_bias=False, name="layer")(x**2)


def test_jacob_cov_takes_the_gradient_of_each_image() -> None:
    x = jnp.asarray(RNG.normal(size=(3, 6)), jnp.float32)
    variables = fresh(Squares(), x)
    weight = np.asarray(variables["params"]["layer"]["kernel"], np.float64)[:, 0]
    values = np.linalg.eigvalsh(np.corrcoef(2 * weight * np.asarray(x, np.float64)))
    expected = -np.sum(np.log(values + 1e-5) + 1 / (values + 1e-5))
    got = zero_cost.jacob_cov(zero_cost.applied(Squares()), variables, x)
    assert float(got) == pytest.approx(expected, rel=1e-3)


def test_zen_against_numpy() -> None:
    """One linear layer, batch norm, one linear layer, in float64."""
    network = Linear((5, 3))
    x, other = (RNG.normal(size=(16, 4)) for _ in range(2))
    variables = fresh(network, jnp.asarray(x, jnp.float32))
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])

    def f(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = x @ p["layer_0"]["kernel"] + p["layer_0"]["bias"]
        normal = (y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5)
        return (normal * p["bn_0"]["scale"] + p["bn_0"]["bias"]) @ p["layer_1"]["kernel"], y.var(0)

    (first, variance), (second, _) = f(x), f(x + 0.01 * other)
    size = np.abs(first - second).sum(1).mean()
    expected = np.log(size) + 0.5 * np.log(variance.mean())
    inputs = [jnp.asarray(value, jnp.float32) for value in (x, other)]
    got = zero_cost.zen(zero_cost.applied(network), variables, *inputs)
    assert float(got) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["naswot"])
def test_a_program_for_many_cells_gives_the_scores_of_a_cell_s_own(name: str) -> None:
    cell = spec.parse(
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"
    )
    x = jnp.asarray(RNG.normal(size=(4, 8, 8, 3)), jnp.float32)
    program = space.program(network201(cell))
    score = getattr(zero_cost, name)
    many = programs.variables(program, 8, np.random.default_rng(0))
    drawn = weights.draw(weights.shapes(program.own, (8, 8, 3)), np.random.default_rng(0))
    expected = score(zero_cost.applied(program.own), weights.tree(drawn), x)
    got = score(zero_cost.applied(program.network), many, x)
    assert float(got) == pytest.approx(float(expected), rel=1e-3)
