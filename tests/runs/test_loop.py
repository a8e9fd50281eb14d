"""The loop by itself, with a learner of a few numbers: when it does what, and how it ends."""

import contextlib
import dataclasses
import logging
import signal

import jax.numpy as jnp
import numpy as np
import pytest

from tests import signals
from unnas_jax.core.errors import UserError
from unnas_jax.runs import checkpoint, loop

PLAN = loop.Plan(total=10, per_epoch=4, batch_size=2, log_every=3, save_every=3, evaluate_every=4)


class Learner:
    """Counts; `events` gets whatever is asked of it."""

    position = {"part": "one"}
    delay = 0

    def __init__(self, events, *, at=None, loss=1.0, held_out=1.0, weight=1.0):
        self.events, self.count = events, 0
        self.at, self.loss, self.held_out, self.weight = at, loss, held_out, weight
        self.state = {"weight": jnp.zeros(2)}
        self.on_step = lambda step: None

    def step(self, step):
        self.count += 1
        bad = step + 1 == self.at
        self.state = {"weight": jnp.full(2, self.weight if bad else float(step + 1))}
        self.on_step(step)
        sums = {"loss": self.loss if bad else 1.0, "correct": 1.0, "count": 2.0}
        return {"weights": {name: jnp.float32(value) for name, value in sums.items()}}

    def evaluate(self):
        bad = self.count == self.at
        return {"accuracy": self.held_out if bad else 0.1 * self.count, "loss": 1.0}

    def record(self, step, metrics):
        self.events.append(("record", step))


@pytest.fixture
def made(tmp_path):
    """A function that makes a loop; its attributes are the learner, events and checkpoints."""
    with contextlib.ExitStack() as stack:

        def make(plan=PLAN, **learner):
            events = []
            make.events, make.learner = events, Learner(events, **learner)
            make.checkpoints = stack.enter_context(
                checkpoint.Checkpoints(str(tmp_path / "checkpoints"))
            )
            return loop.Loop(
                plan,
                make.learner,
                make.checkpoints,
                metric="accuracy",
                identity={"data": "these"},
                images=2,
                schedule=lambda step: 0.1,
                write=lambda kind, step, **values: events.append((kind, step)),
                publish=lambda: events.append(("publish", None)),
                after_save=lambda: events.append(("after", None)),
            )

        yield make


def test_it_logs_evaluates_and_saves_when_the_plan_says(made):
    assert made().run() == 10
    rows = [event for event in made.events if event[0] in ("train", "record")]
    # Every three steps, and before whatever is evaluated or saved.
    assert [step for kind, step in rows if kind == "train"] == [3, 4, 6, 8, 9, 10]
    assert [step for kind, step in rows if kind == "record"] == [4, 8, 10]
    # What an evaluation leaves is published before its checkpoint, and the rest comes behind.
    assert made.events[-4:] == [("train", 10), ("record", 10), ("publish", None), ("after", None)]
    state, position = made.checkpoints.restore({"weight": np.zeros(2, np.float32)})
    np.testing.assert_array_equal(state["weight"], [10.0, 10.0])
    assert position == {
        "step": 10,
        "epoch": 2.5,
        "data_position": 20,
        "validation": pytest.approx(1.0),
        "part": "one",
        "data": "these",
    }
    assert made.checkpoints.steps() == [9, 10]


def test_it_goes_on_from_a_step_with_the_ranking_of_before(made):
    assert made().run(8, 0.8) == 10
    assert made.learner.count == 2
    assert made.checkpoints.steps() == [9, 10]
    progress = made.checkpoints._manager.restore(9).progress
    assert progress["validation"] == 0.8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_signal_saves_the_step_at_which_it_came(made, number, caplog):
    made_loop = made()
    made.learner.on_step = lambda step: step == 4 and signals.interrupt(number)
    handler = signal.getsignal(number)
    with caplog.at_level(logging.INFO, "unnas_jax"):
        stopped = made_loop.run()
    assert stopped == made.checkpoints.latest() == 5
    assert "Stopped by a signal at step 5" in caplog.text
    assert signal.getsignal(number) == handler


@pytest.mark.parametrize(
    "what, words",
    [
        ({"loss": float("nan")}, "the loss (weights) became NaN or infinite at step 5"),
        ({"weight": float("inf")}, "the state (weight) became NaN or infinite at step"),
        ({"held_out": float("nan")}, "the held-out accuracy became NaN or infinite at step"),
    ],
)
def test_nothing_that_is_not_finite_is_saved_or_recorded(made, what, words):
    at = 8 if "held_out" in what else 6 if "weight" in what else 5
    with pytest.raises(UserError) as error:
        made(at=at, **what).run()
    last = {5: 4, 6: 4, 8: 6}[at]
    assert words in str(error.value) and f"the one of step {last} is kept" in str(error.value)
    assert made.checkpoints.latest() == last
    assert ("record", 8) not in made.events


def test_a_short_run_saves_nothing_but_at_a_signal(made):
    plan = dataclasses.replace(PLAN, save_seconds=1000.0)
    assert made(plan).run() == 10
    assert [step for kind, step in made.events if kind == "record"] == [4, 8, 10]
    assert made.checkpoints.latest() is None
    made_loop = made(plan)

    def interrupt(step):
        if step == 4:
            signals.interrupt()

    made.learner.on_step = interrupt
    assert made_loop.run() == made.checkpoints.latest()


def test_the_first_compilation_is_announced(made, caplog):
    with caplog.at_level(logging.INFO, "unnas_jax"):
        made().run()
    assert caplog.messages[0] == "Compiling the first step ..."
    assert "Compiling the first step: done after" in caplog.text
