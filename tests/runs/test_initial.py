"""Trainings that begin with another's weights: all but the head, and what does not fit is named."""

import logging

import jax
import numpy as np
import pytest

from tests.handmade import SMALL
from tests.handmade import trained as handmade
from unnas_jax.core.errors import UserError
from unnas_jax.learning.trainer import TrainState
from unnas_jax.runs import initial, trained


def state_of(new: trained.Trained, average: bool = False) -> TrainState:
    zeros = jax.tree.map(np.zeros_like, new.variables)
    return TrainState(
        np.asarray(new.seeds), np.zeros(len(new.seeds), np.int32), **zeros,
        average=zeros if average else {}, optimizer=(),
    )  # fmt: skip


@pytest.fixture
def begun(monkeypatch):
    def begin(other: trained.Trained, state: TrainState) -> TrainState:
        monkeypatch.setattr(trained, "read", lambda *_, **__: other)
        return initial.with_weights_of(state, "runs/pretext")

    return begin


def test_all_but_the_head_is_taken(begun):
    other = handmade((3, 4), task={"name": "rotation"}, network=SMALL)
    state = begun(other, state_of(handmade((0, 1, 2), network=SMALL), average=True))
    for kind in ("params", "batch_stats"):
        found = getattr(state, kind)
        for k, source in enumerate((0, 1, 0)):
            for module in set(found) - {"head"}:
                jax.tree.map(
                    lambda a, b, k=k, source=source: np.testing.assert_array_equal(a[k], b[source]),
                    found[module],
                    other.variables[kind][module],
                )
    assert not np.any(state.params["head"]["linear"]["kernel"])
    assert state.params["head"]["linear"]["kernel"].shape == (3, 16, 3)
    jax.tree.map(np.testing.assert_array_equal, state.average["params"], state.params)


def test_other_channels_keep_the_stem(begun, caplog):
    other = handmade(task={"name": "colorization"}, network=SMALL)
    with caplog.at_level(logging.WARNING, "unnas_jax"):
        state = begun(other, state_of(handmade(network=SMALL)))
    assert "own draws of stem/convolution/conv/kernel is (3, 3, 1, 4) there and (3, 3, 3, 4)" in (
        caplog.text
    )
    assert not np.any(state.params["stem"]["convolution"]["conv"]["kernel"])
    assert np.any(state.params["stage_0_cell_0"]["edge_0_1"]["convolution"]["conv"]["kernel"])


def test_another_network_is_refused_by_name(begun):
    wide = {**SMALL, "width": "8"}
    with pytest.raises(
        UserError,
        match=r"initial='runs/pretext': its network is another: bn/mean is \(32,\) there and "
        r"\(16,\) here; .* and \d+ more; give a training of the same cells",
    ):
        begun(handmade(network=wide), state_of(handmade(network=SMALL)))


def test_a_workdir_that_is_none(tmp_path):
    with pytest.raises(UserError, match="config.train.initial=.*nothing"):
        initial.with_weights_of(state_of(handmade(network=SMALL)), str(tmp_path / "nothing"))
