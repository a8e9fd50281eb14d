"""The memory of programs on CPUs, in processes of their own: what they ask for stays asked for."""

import ctypes
import os
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


def test_a_given_way_to_dispatch_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "JAX_CPU_ENABLE_ASYNC_DISPATCH"
    for given, then in ((None, "false"), ("true", "true")):
        monkeypatch.delenv(name, raising=False)
        if given:
            monkeypatch.setenv(name, given)
        memory.dispatch_at_once()
        assert os.environ[name] == then
    monkeypatch.delenv(name)
