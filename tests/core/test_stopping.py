"""Signals to a program: before, in and after the time when it has something to save."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT

_PROGRAM = """
import hashlib, sys, time
from unnas_jax.core import stopping
stopping.watch()
print("ready", flush=True)
if sys.argv[1] == "imports":
    sys.modules["jax"] = type(sys)("jax")  # As long as it is being imported.
    time.sleep(1)
    stopping.nothing_to_save(75)
    time.sleep(600)
if sys.argv[1] == "loop":
    stopping._SAME_S = 60  # However long the test's process waits for its turn between two.
if sys.argv[1] == "compiles":
    stopping.nothing_to_save(0)
    with stopping.on_signals():
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # Minutes within one call.
with stopping.on_signals() as stop:
    print("loop", stop(0), flush=True)
    while not stop(1) or sys.argv[1] == "hangs":
        time.sleep(0.01)
print("saved", flush=True)
if sys.argv[1] == "loop":
    sys.stdin.read()  # Signals come until the test closes it: an interpreter that ends takes none.
"""


@contextlib.contextmanager
def _program(how: str, *prefix: str):
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", _PROGRAM, how],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    if how in ("loop", "hangs"):
        assert process.stdout.readline() == "loop False\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _end(process) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=600)
    assert "Traceback" not in errors
    return process.returncode, out, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_the_first_signal_asks_the_loop(number):
    with _program("loop") as process:
        process.send_signal(number)
        process.send_signal(number)  # As schedulers do, to the process and to its group.
        status, out, errors = _end(process)
    assert status == 0 and out == "saved\n"
    assert f"{number.name}: saves and leaves after this step" in errors


def test_a_second_one_leaves_at_once():
    with _program("hangs") as process:
        process.send_signal(signal.SIGTERM)
        assert "saves and leaves" in process.stderr.readline()
        time.sleep(0.4)
        process.send_signal(signal.SIGINT)
        status, out, errors = _end(process)
    assert status == 128 + signal.SIGINT and not out
    assert "SIGINT again: leaves at once" in errors


@pytest.mark.parametrize("how, expected", [("imports", 75), ("compiles", 0)])
def test_with_nothing_to_save_the_first_one_leaves(how, expected):
    """Also within a call that runs for minutes, as the compiler's does."""
    with _program(how) as process:
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        status, out, errors = _end(process)
    assert status == expected and not out
    assert "the same command continues" in errors


def test_what_nohup_ignores_stays_ignored():
    with _program("loop", "nohup") as process:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGTERM)
        assert _end(process)[0] == 0
