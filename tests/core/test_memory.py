"""The memory of programs on CPUs, in processes of their own: what they ask for stays asked for."""

import ctypes
import subprocess
import sys

import pytest

from unnas_jax.core import memory

FAULTS = """
import resource, sys
import numpy as np
from unnas_jax.core import memory
if sys.argv[1] == "keep":
    memory.keep_freed()
def touch():
    return [np.ones(2**24, np.float32) for _ in range(2)]
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, word], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_what_is_freed_is_not_cleared_again() -> None:
    given = faults("give")
    assert faults("keep") <= given / 10 and given > 20


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    memory.keep_freed()


STEPS = """
import resource
from unnas_jax.core import memory
memory.dispatch_at_once()
memory.keep_freed()
import jax, jax.numpy as jnp
@jax.jit
def step(x):  # What is between the products has 268 MB, for which XLA asks at each call.
    return x + 1e-9 * (jnp.tanh(x @ x.T) @ x)
def take(x, count):
    for _ in range(count):
        x = step(x)  # Called before its argument is there.
    x.block_until_ready()
x = jnp.ones((8192, 4), jnp.float32)
take(x, 3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
take(x, 12)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_steps_do_not_fault_for_what_xla_asks_for() -> None:
    def faults_of(program: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    asked = 12 * 2**28 // 4096  # Pages, at each of twelve calls all of them.
    assert faults_of(STEPS) <= asked / 3  # The memory may grow a little more.
    for setting in ("memory.dispatch_at_once()", "memory.keep_freed()"):
        assert faults_of(STEPS.replace(setting, "")) > asked / 2
