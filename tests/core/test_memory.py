"""The memory of programs on CPUs, in processes of their own: what they ask for stays asked for."""

import os
import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from unnas_jax.core import memory

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def test_only_this_process_keeps_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory.VARIABLE, memory.TUNABLES)
    memory.not_inherited()
    assert memory.VARIABLE not in os.environ
    for own in ("", "glibc.malloc.mmap_max=3"):
        monkeypatch.setenv(memory.VARIABLE, own)
        memory.not_inherited()
        assert os.environ[memory.VARIABLE] == own


def test_the_command_prints_it_without_heavy_imports() -> None:
    program = [sys.executable, "-X", "importtime", "-m", "unnas_jax.core.memory"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == memory.TUNABLES + "\n" and " jax" not in done.stderr


STEPS = """
import resource
from unnas_jax.core import memory
memory.dispatch_at_once()
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


def faults(program: str, tunables: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, memory.VARIABLE: tunables},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@needs_glibc
def test_steps_do_not_fault_for_what_xla_asks_for() -> None:
    # Of twelve steps' pages, which may be huge ones, hardly any.
    assert faults(STEPS, memory.TUNABLES) < faults(STEPS, "") / 8
