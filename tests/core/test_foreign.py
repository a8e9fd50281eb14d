"""Python functions in compiled programs: their data, mistakes, and where they may be called."""

import ctypes
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import conftest
from unnas_jax.core import foreign

CALLS = itertools.count()


def view(array: foreign.Array) -> np.ndarray:
    """A float32 array of a program."""
    size = int(np.prod(array.shape))
    kind = ctypes.c_float * size
    return np.frombuffer(kind.from_address(array.address), np.float32).reshape(array.shape)


def both(
    arguments: Sequence[foreign.Array], results: Sequence[foreign.Array], numbers: Sequence[int]
) -> None:
    """The sum and the difference of a matrix and a row, times the numbers."""
    next(CALLS)
    matrix, row = map(view, arguments)
    total, difference = map(view, results)
    first, second = numbers or (1, 1)
    total[...], difference[...] = first * (matrix + row), second * (matrix - row)


def refuse(
    arguments: Sequence[foreign.Array], results: Sequence[foreign.Array], numbers: Sequence[int]
) -> None:
    if view(arguments[0]).sum() < 0:
        raise {1: ValueError("a sum below 0"), 2: KeyboardInterrupt(), 3: ValueError("\ud800")}[
            numbers[0]
        ]
    view(results[0])[...] = 7


foreign.register("tests.foreign.both", both)
foreign.register("tests.foreign.refuse", refuse)

MATRIX, ROW = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)


def call(matrix: jax.Array, row: jax.Array, numbers: Sequence[int] | None = (2, 3)) -> list:
    shape = jax.ShapeDtypeStruct(matrix.shape, jnp.float32)
    function = jax.ffi.ffi_call("tests.foreign.both", [shape, shape], vmap_method="sequential")
    given = {} if numbers is None else {"numbers": np.asarray(numbers, np.int64)}
    return function(matrix, row, **given)


def expect(found: Sequence[jax.Array], matrix: np.ndarray, first: int = 2, second: int = 3) -> None:
    np.testing.assert_array_equal(found[0], first * (matrix + ROW))
    np.testing.assert_array_equal(found[1], second * (matrix - ROW))


@pytest.mark.parametrize("way", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_arrays_and_numbers_arrive_and_results_come_back(way) -> None:
    expect(way(call)(MATRIX, ROW), MATRIX)
    expect(way(lambda m, r: call(m, r, None))(MATRIX, ROW), MATRIX, 1, 1)


def test_an_empty_array_has_its_shape() -> None:
    empty = np.zeros((0, 3), np.float32)
    assert [part.shape for part in call(empty, ROW)] == [(0, 3)] * 2


@pytest.mark.parametrize(
    "number, said", [(1, "a sum below 0"), (2, "KeyboardInterrupt"), (3, "[?]")]
)
def test_what_it_raises_is_an_error_of_the_program(number: int, said: str) -> None:
    def program(x: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.ffi.ffi_call("tests.foreign.refuse", shape)(x, n=np.asarray([number], np.int64))

    with pytest.raises(jax.errors.JaxRuntimeError, match=f"tests.foreign.refuse: {said}"):
        jax.jit(program)(-ROW).block_until_ready()
    assert jax.jit(program)(ROW) == 7


def test_in_loops_conditionals_and_maps() -> None:
    @jax.jit
    def program(matrix: jax.Array, row: jax.Array, which: bool) -> tuple:
        looped = jax.lax.fori_loop(0, 3, lambda _, x: call(x, row, (1, 1))[0], matrix)
        chosen = jax.lax.cond(which, lambda: call(matrix, row), lambda: [matrix, matrix])
        mapped = jax.vmap(call, (0, None))(jnp.stack([matrix, matrix + 1]), row)
        return looped, chosen, mapped

    looped, chosen, mapped = program(MATRIX, ROW, True)
    np.testing.assert_array_equal(looped, MATRIX + 3)
    expect(chosen, MATRIX)
    for k in (0, 1):
        expect([part[k] for part in mapped], MATRIX + k)
    np.testing.assert_array_equal(program(MATRIX, ROW, False)[1][0], MATRIX)


def test_several_threads_call_at_once() -> None:
    program = jax.jit(call)
    program(MATRIX, ROW)
    found: dict[int, list] = {}

    def work(k: int) -> None:
        found[k] = [np.stack(program(MATRIX + k * n, ROW)) for n in range(50)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, n in itertools.product(range(4), range(50)):
        expect(found[k][n], MATRIX + k * n)


def test_one_thread_runs_all_and_hands_back_what_is_raised() -> None:
    run, found, raised = foreign.one_thread(), [], []

    def fail() -> None:
        raise ValueError(threading.get_ident())

    def work() -> None:
        run(lambda: found.append(threading.get_ident()))
        try:
            run(fail)
        except ValueError as error:
            raised.append(error.args[0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [own] = set(found)
    assert found == raised == [own] * 4
    assert own not in {threading.get_ident(), *(thread.ident for thread in threads)}


CACHED = """
import jax
from tests.core import test_foreign as t
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
program = jax.jit(lambda m, r: t.call(m, r, (5, 7)))
t.expect(program(t.MATRIX, t.ROW), t.MATRIX, 5, 7)
print(hits.count("/jax/compilation_cache/cache_hits"), next(t.CALLS))
"""


def test_a_new_process_finds_its_program_in_the_cache(tmp_path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(conftest.ROOT),
        "XLA_FLAGS": conftest.QUICK,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    said = [
        subprocess.run(
            [sys.executable, "-c", CACHED],
            env=environment,
            cwd=conftest.ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert said == [["0", "1"], ["1", "1"]]
