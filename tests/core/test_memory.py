"""The memory of programs on CPUs, in processes of their own: what they ask for stays asked for."""

import os
import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from unnas_jax.core import memory

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def test_what_is_set_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(memory.VARIABLE, raising=False)
    alone = memory.keeping()
    monkeypatch.setenv(memory.VARIABLE, "glibc.malloc.top_pad=1:glibc.rtld.nns=2")
    words = memory.keeping().split(":")
    assert words[-2:] == ["glibc.malloc.top_pad=1", "glibc.rtld.nns=2"]
    assert words[:-2] == [word for word in alone.split(":") if "top_pad" not in word]
    monkeypatch.setenv(memory.VARIABLE, alone)
    assert sorted(memory.keeping().split(":")) == sorted(alone.split(":"))


def test_the_command_prints_it_without_heavy_imports() -> None:
    program = [sys.executable, "-X", "importtime", "-m", "unnas_jax.core.memory"]
    environment = {k: v for k, v in os.environ.items() if k != memory.VARIABLE}
    done = subprocess.run(
        program, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("glibc.malloc.") and " jax" not in done.stderr


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
    each_time = faults(STEPS, "")  # All the pages of twelve steps.
    assert faults(STEPS, memory.keeping()) < each_time / 12  # Not even those of one.
    in_a_thread = STEPS.replace("memory.dispatch_at_once()", "")
    assert faults(in_a_thread, memory.keeping()) > each_time / 2
