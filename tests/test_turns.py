"""Processes of benchmarks that work by turns, with an object that computes next to nothing."""

import os
import signal
import time

import pytest

from benchmarks import turns
from unnas_jax.core.errors import UserError


class _Count:
    def __init__(self, start: int) -> None:
        if start < 0:
            raise ValueError("below\nzero")
        self.now = start

    def step(self, by: int) -> int:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        self.now += by
        return self.now

    def wrong(self) -> None:
        raise UserError("no such thing; leave it out")

    def die(self, by: signal.Signals) -> None:
        os.kill(os.getpid(), by)

    def pid(self) -> int:
        return os.getpid()

    def variable(self, name: str) -> str | None:
        return os.environ.get(name)


def test_each_has_a_process_and_its_times() -> None:
    with turns.started("one", _Count, 1) as one, turns.started("two", _Count, 5) as two:
        assert [side.turn("step", 2).result for side in (one, two, one)] == [3, 7, 5]
        found = one.turn("step", 0)
        # The clock of the processor stands still while another process has it, the other does not.
        assert 0.05 <= found.cpu_s < 0.2
        assert found.wall_s > 0.04
        assert found.peak_mb > 5
        pids = {os.getpid(), one.turn("pid").result, two.turn("pid").result}
    assert len(pids) == 3
    for pid in pids - {os.getpid()}:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("wrong", "^side: no such thing; leave it out$"),
        ("step", r"^side: TypeError in turns.py:\d+: "),
    ],
)
def test_what_fails_is_told_in_a_line(method: str, message: str) -> None:
    with turns.started("side", _Count, 0) as side, pytest.raises(UserError, match=message):
        side.turn(method)


def test_what_cannot_be_made_is_told_in_a_line() -> None:
    with (
        pytest.raises(UserError, match=r"^side: ValueError in test_turns.py:\d+: below zero$"),
        turns.started("side", _Count, -1),
    ):
        pytest.fail("It was made.")


def test_a_process_that_dies_is_told() -> None:
    with turns.started("side", _Count, 0) as side:
        for _ in range(2):  # Also when something is asked of it again.
            with pytest.raises(UserError, match="^side: its process ended with signal SIGKILL$"):
                side.turn("die", signal.SIGKILL)


def test_variables_of_one_process_are_those_of_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNNAS_SEEN", "here")
    monkeypatch.delenv("UNNAS_NEW", raising=False)
    with turns.started("side", _Count, 0, variables={"UNNAS_SEEN": "", "UNNAS_NEW": "x"}) as side:
        assert [side.turn("variable", f"UNNAS_{key}").result for key in ("SEEN", "NEW")] == [
            "",
            "x",
        ]
        assert os.environ["UNNAS_SEEN"] == "here" and "UNNAS_NEW" not in os.environ
