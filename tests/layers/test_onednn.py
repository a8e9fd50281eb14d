"""Convolutions by oneDNN against plain loops in float64, and what is left to others."""

import gc
import itertools
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import conftest
from unnas_jax.core import onednn as library
from unnas_jax.layers import onednn

pytestmark = pytest.mark.skipif(not onednn.available(), reason="oneDNN is not installed")

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def small_arrays_of_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "_FEWEST", 0)
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def refuse(*given: Any, **more: Any) -> jax.Array:
    raise AssertionError("was to be oneDNN's")


def conv(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    pad: int = 0,
    step: int = 1,
    groups: int = 1,
    otherwise: Any = refuse,
) -> jax.Array:
    return onednn.convolve(
        x,
        kernel,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        rhs_dilation=(step, step),
        lhs_dilation=(1, 1),
        feature_group_count=groups,
        otherwise=otherwise,
    )


def plain(x: np.ndarray, kernel: np.ndarray, stride: int, pad: int, step: int) -> tuple:
    """The result, and a function from its gradient to those of images and kernel; in float64."""
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    deep = kernel.shape[2] == 1  # One channel in, one out.
    wide = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = (
        (wide.shape[1 + axis] - step * (kernel.shape[axis] - 1) - 1) // stride + 1
        for axis in (0, 1)
    )
    taps = list(itertools.product(range(kernel.shape[0]), range(kernel.shape[1])))

    def met(tap: tuple[int, int]) -> tuple[slice, ...]:
        row, column = (step * k for k in tap)
        ends = row + stride * (rows - 1) + 1, column + stride * (columns - 1) + 1
        return slice(None), slice(row, ends[0], stride), slice(column, ends[1], stride)

    def times(part: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return part * weights[0] if deep else part @ weights

    def gradients(of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        of = of.astype(np.float64)
        images, weights = np.zeros_like(wide), np.zeros_like(kernel)
        for tap in taps:
            images[met(tap)] += times(of, kernel[tap] if deep else kernel[tap].T)
            part = wide[met(tap)]
            products = part * of if deep else part[..., :, None] * of[..., None, :]
            weights[tap] = products.sum((0, 1, 2))
        height, width = x.shape[1:3]
        return images[:, pad : pad + height, pad : pad + width], weights

    return sum(times(wide[met(tap)], kernel[tap]) for tap in taps), gradients


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def arrays(side: int, size: int, deep: bool, channels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    kernel = (size, size, 1, channels) if deep else (size, size, channels, 6)
    return normal(2, side, side + 2, channels), normal(*kernel)


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def cases() -> Iterator[tuple[int, int, int, int, int]]:
    """Strides, sizes of kernels, sides, padding and dilations."""
    for stride, size, side, padded, step in itertools.product(
        (1, 2), (1, 3, 5), (8, 9), (False, True), (1, 2)
    ):
        pad = step * (size // 2) if padded else 0
        if (padded or size > 1) and side + 2 * pad > step * (size - 1):
            yield stride, size, side, pad, step


@pytest.mark.parametrize("deep", [False, True], ids=["dense", "depthwise"])
def test_results_and_gradients(deep: bool) -> None:
    done = set()
    for stride, size, side, pad, step in cases():
        x, kernel = arrays(side, size, deep)
        expected, gradients = plain(x, kernel, stride, pad, step)
        others: list[int] = []

        def other(*given: Any, others: list[int] = others, **more: Any) -> jax.Array:
            others.append(1)
            more.pop("lhs_dilation")
            return jax.lax.conv_general_dilated(
                *given, **more, dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        groups = 4 if deep else 1
        found, back = jax.vjp(
            lambda x, k, s=(stride, pad, step, groups), o=other: conv(x, k, *s, otherwise=o),
            x,
            kernel,
        )
        if others:  # Only images that do not divide into phases.
            assert step == 2 and stride == 1 and side % 2
            continue
        done.add((stride, size, side, pad, step))
        assert found.shape == expected.shape
        close(found, expected)
        of = normal(*found.shape)
        for one, two in zip(back(of), gradients(of), strict=True):
            close(one, two)
    assert {(s, d) for s, _, _, _, d in done} == set(itertools.product((1, 2), (1, 2)))
    assert len(done) >= 30


def test_sides_kernels_and_paddings_need_not_be_square() -> None:
    x, kernel = normal(2, 7, 10, 3), normal(1, 5, 3, 4)

    def function(convolve: Any, **more: Any) -> Any:
        return lambda x, k: convolve(x, k, (2, 1), ((1, 0), (3, 2)), rhs_dilation=(1, 1), **more)

    ours = function(onednn.convolve, otherwise=refuse)
    layout = ("NHWC", "HWIO", "NHWC")
    theirs = function(jax.lax.conv_general_dilated, dimension_numbers=layout)
    (one, back), (two, expected) = jax.vjp(ours, x, kernel), jax.vjp(theirs, x, kernel)
    close(one, two)
    of = normal(*one.shape)
    for one, two in zip(back(of), expected(of), strict=True):
        close(one, two)


@pytest.mark.parametrize("groups, stride", [(1, 1), (1, 2), (4, 2)])
def test_second_derivatives(groups: int, stride: int) -> None:
    """Of a function that is not linear in either, so that all parts of the second are met."""
    x, kernel = arrays(5, 3, groups > 1)
    directions = normal(*x.shape), normal(*kernel.shape)

    def second(convolve: Any, x: jax.Array, kernel: jax.Array, directions: Any) -> Any:
        def slope(x: jax.Array, kernel: jax.Array) -> jax.Array:
            found = jax.grad(lambda x, k: jnp.sum(convolve(x, k) ** 3), (0, 1))(x, kernel)
            return sum(jnp.vdot(a, b) for a, b in zip(found, directions, strict=True))

        return jax.grad(slope, (0, 1))(x, kernel)

    found = second(lambda x, k: conv(x, k, stride, 1, 1, groups), x, kernel, directions)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (x, kernel, directions))
        expected = second(
            lambda x, k: jax.lax.conv_general_dilated(
                x,
                k,
                (stride, stride),
                ((1, 1), (1, 1)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            ),
            *wide,
        )
        assert expected[0].dtype == jnp.float64
    for one, two in zip(found, expected, strict=True):
        close(one, two)


def test_a_gradient_is_the_slope() -> None:
    x, kernel = arrays(6, 3, False)
    weights, direction = normal(2, 6, 8, 6), normal(*kernel.shape)
    function = jax.jit(lambda k: jnp.sum(conv(x, k, 1, 1) * weights))
    slope = jnp.vdot(jax.grad(function)(kernel), direction)
    close((function(kernel + direction) - function(kernel - direction)) / 2, slope, 1e-4)


def given_away(x: Any, kernel: Any, **more: Any) -> bool:
    """Whether a convolution goes to another; what that one is given is what was given."""
    seen: list[Any] = []

    def other(*given: Any, **rest: Any) -> jax.Array:
        seen.append((given, rest))
        return jnp.zeros(())

    arguments = {
        "strides": (1, 1),
        "padding": ((1, 1), (1, 1)),
        "rhs_dilation": (1, 1),
        "feature_group_count": 1,
        **more,
    }
    onednn.convolve(x, kernel, otherwise=other, **arguments)
    if not seen:
        return False
    [(given, rest)] = seen
    assert given[0] is x and given[1] is kernel
    rest.update(strides=given[2], padding=given[3])
    assert rest == arguments
    return True


def test_what_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    x, kernel = map(jnp.asarray, arrays(6, 3, False))
    assert not given_away(x, kernel)
    with jax.enable_x64(True):
        assert given_away(x.astype(jnp.float64), kernel.astype(jnp.float64))
    assert given_away(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert given_away(x, kernel.astype(jnp.bfloat16))
    assert given_away(x, kernel[:, :, :2], feature_group_count=2)
    assert given_away(x, jnp.ones((3, 3, 1, 8)), feature_group_count=4)  # Two filters a channel.
    assert not given_away(x, jnp.ones((3, 3, 1, 4)), feature_group_count=4)
    assert given_away(x, kernel, padding="SAME")
    assert given_away(x, kernel, padding=((1, -1), (1, 1)))
    assert given_away(x, kernel, rhs_dilation=(1, 2))
    assert given_away(x, kernel, rhs_dilation=(2, 2))  # By a padding of 1.
    assert given_away(x, kernel, lhs_dilation=(2, 2))
    monkeypatch.setattr(onednn, "_FEWEST", 1)
    assert given_away(x[:0], kernel)
    assert given_away(x, jnp.ones((12, 14, 4, 6)))  # Nothing is left in either direction.
    products = 2 * 6 * 8 * kernel.size
    monkeypatch.setattr(onednn, "_FEWEST", products)
    assert not given_away(x, kernel)
    monkeypatch.setattr(onednn, "_FEWEST", products + 1)
    assert given_away(x, kernel)
    monkeypatch.setattr(onednn, "_FEWEST", 0)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    assert given_away(x, kernel)


@pytest.fixture
def anew() -> Iterator[None]:
    """The library is looked for again; afterwards as before, with the handlers it had."""
    kept = onednn._library, onednn.tell
    for function in (onednn._library, onednn.tell):
        setattr(onednn, function.__name__, onednn.functools.cache(function.__wrapped__))
    yield
    onednn._library, onednn.tell = kept


@pytest.mark.parametrize(
    "path, said", [("", "pip install 'unnas_jax[cpu]'"), (__file__, "does not load")]
)
def test_without_the_library(
    path: str,
    said: str,
    anew: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(library, "path", lambda: path)
    monkeypatch.setattr(logging.getLogger("unnas_jax"), "propagate", True)
    caplog.set_level(logging.INFO, "unnas_jax")
    assert not onednn.available() and "OMP_WAIT_POLICY" not in os.environ
    assert given_away(*map(jnp.asarray, arrays(6, 3, False)))
    for _ in range(2):
        onednn.tell("cpu", 1)
    [line] = [record.getMessage() for record in caplog.records]
    assert said in line


def test_it_is_said_once_by_what(
    anew: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onednn, "available", lambda: True)
    monkeypatch.setattr(logging.getLogger("unnas_jax"), "propagate", True)
    caplog.set_level(logging.INFO, "unnas_jax")
    for backend, devices in (("gpu", 1), ("cpu", 2), ("cpu", 1), ("cpu", 1)):
        onednn.tell(backend, devices)
    [line] = [record.getMessage() for record in caplog.records]
    assert line == "Large convolutions in float32 are oneDNN's in networks that train alone."


def test_the_same_bits_twice_and_in_every_thread() -> None:
    x, kernel = normal(8, 16, 16, 16), normal(3, 3, 16, 16)
    program = jax.jit(
        lambda x, k: jax.value_and_grad(lambda x, k: jnp.sum(conv(x, k, 1, 1) ** 2), (0, 1))(x, k)
    )
    first = [np.asarray(leaf) for leaf in jax.tree.leaves(program(x, kernel))]
    same: list[bool] = []

    def work() -> None:
        for _ in range(10):
            found = jax.tree.leaves(program(x, kernel))
            same.append(all(np.array_equal(a, b) for a, b in zip(found, first, strict=True)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True] * 40


def test_maps_and_loops() -> None:
    x, kernel = normal(3, 2, 6, 6, 4), normal(3, 3, 4, 4)
    found = jax.jit(jax.vmap(lambda x: conv(x, kernel, 1, 1)))(x)
    for one, two in zip(found, x, strict=True):
        close(one, plain(two, kernel, 1, 1, 1)[0])
    twice = jax.jit(lambda x: jax.lax.fori_loop(0, 2, lambda _, x: conv(x, kernel, 1, 1), x))(x[0])
    once = plain(x[0], kernel, 1, 1, 1)[0]
    close(twice, plain(once, kernel, 1, 1, 1)[0])


def test_what_is_no_longer_kept_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = onednn._library()
    counts = {"create": 0, "destroy": 0}
    call = loaded.call

    def counting(name: str, *arguments: Any) -> None:
        call(name, *arguments)
        for word in counts:
            counts[word] += word in name

    monkeypatch.setattr(loaded, "call", counting)
    window = library.Window((1, 1), (1, 1), (1, 1), 1)
    for kind in ("forward", "of_images", "of_kernel"):
        made = library.Convolution(loaded, kind, (2, 6, 6, 4), (3, 3, 4, 6), window)
        assert counts["create"] > counts["destroy"] > 0
        del made
        gc.collect()
        assert counts["create"] == counts["destroy"]
    with pytest.raises(RuntimeError, match="status"):  # Sides that are not those of the result.
        library.Convolution(loaded, "forward", (2, 6, 6, 4), (3, 3, 5, 6), window)
    assert counts["create"] == counts["destroy"]


ENDING = """
import jax, jax.numpy as jnp
from unnas_jax.layers import onednn
onednn._FEWEST = 0
x, kernel = jnp.ones((8, 8, 8, 8)), jnp.full((3, 3, 8, 8), 0.01)
pads = ((1, 1), (1, 1))

@jax.jit
def many(x):
    for _ in range(50):
        x = onednn.convolve(x, kernel, (1, 1), pads, rhs_dilation=(1, 1), otherwise=None)
    return x

@jax.jit
def slow(s):
    return jax.lax.fori_loop(0, 3000, lambda _, s: jnp.tanh(s @ s), s)

s = jnp.ones((128, 128))
for wait in (True, False):
    # A program with calls begins later, in a thread of XLA, where it waits for another.
    y = many(x + slow(s)[0, 0])
    if wait:
        y.block_until_ready()
print(y.is_ready())
AFTER
"""


@pytest.mark.parametrize("after", ["", "del y"], ids=["kept", "dropped"])
def test_a_program_may_still_run_when_the_interpreter_ends(after: str) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(conftest.ROOT),
        "XLA_FLAGS": conftest.QUICK,
        "JAX_CPU_ENABLE_ASYNC_DISPATCH": "true",
    }
    done = subprocess.run(
        [sys.executable, "-c", ENDING.replace("AFTER", after)],
        env=environment,
        cwd=conftest.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
