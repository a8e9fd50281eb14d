"""Every method and remedy: devices do not matter, and a killed search ends in the same bits.

Among the spaces are S2, S3 and S4 of RobustDARTS.
"""

import functools
import json
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
import pytest

from tests import conftest, tiny
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import sharding
from unnas_jax.methods import registry
from unnas_jax.methods.base import Setting
from unnas_jax.methods.darts import Darts
from unnas_jax.methods.draws import WEIGHT_STEP
from unnas_jax.runs import outputs, snapshot, validation
from unnas_jax.runs import search as search_lib
from unnas_jax.runs import stages as stages_lib
from unnas_jax.spaces import mixed
from unnas_jax.spaces.darts.candidates import KINDS
from unnas_jax.tasks import registry as tasks

LEFT = ("none", "skip_connect", "sep_conv_3x3")  # S3.

# The method, its options, fields of config.network, the stage, and what an earlier one left.
CASES: dict[str, tuple[str, dict, dict, int, Any]] = {
    "pc_darts": ("pc_darts", {"perturbation": "random"}, {"partial_channels": 2}, 0, None),
    "p_darts": (
        "p_darts",
        {"cells_added": (0, 0, 0), "kept": (3, 2), "skip_dropout": (0.0, 0.4, 0.7)},
        {"operations": ("none", "skip_connect", "max_pool_3x3", "avg_pool_3x3")},
        1,
        {kind: [["none", "skip_connect", "avg_pool_3x3"]] * 2 for kind in KINDS},
    ),
    "gdas in S3": ("gdas", {}, {"operations": LEFT}, 0, None),
    "adversarial in S4": (
        "darts",
        {"perturbation": "adversarial", "drop_path": 0.3},
        {"operations": ("noise", "sep_conv_3x3")},
        0,
        None,
    ),
    "remedies in S2": (
        "darts",
        {"mixing": "sigmoid", "zero_one": 10.0, "threshold": 0.85, "auxiliary_decay": "cosine"},
        {"auxiliary_skip": True, "operations": ("skip_connect", "sep_conv_3x3")},
        0,
        None,
    ),
    "pc_darts in NAS-Bench-201": (
        "pc_darts",
        {"drop_path": 0.3},
        {
            "space": "nasbench201", "stem": "cifar", "cells": 3, "nodes": 4,
            "partial_channels": 2, "auxiliary_skip": True,
        },
        0,
        None,
    ),
}  # fmt: skip


SMOOTH = ("darts", {}, {"operations": ("skip_connect", "avg_pool_3x3")}, 0, None)
"""Whose loss is a smooth function of the alphas, and has few."""


EPOCHS = 6  # Of four steps.


def config_of(name: str) -> ml_collections.ConfigDict:
    method, options, network, *_ = CASES.get(name, SMOOTH)
    config = tiny.config(epochs=EPOCHS)
    config.network.update({"nodes": 1, **network})
    config.input.update(crop=8, resize=8)
    registry.choose(config, method, **options)
    validation.validate(config)
    return config


@functools.cache
def at_stage(name: str, devices: int, stage: int, carried: str) -> Darts:
    """Instances never change, so that tests share what they compile."""
    config = config_of(name)
    c = config.to_dict()
    task = tasks.create(c, tiny.dataset())
    mesh = sharding.data_mesh(jax.devices()[:devices])
    first = 4 * EPOCHS // 3 * stage
    found = registry.METHODS[config.search.method](
        Setting(MethodConfig.of(c), task, mesh, 4, stage, first, json.loads(carried))
    )
    assert isinstance(found, Darts)
    return found


def made(name: str, devices: int) -> Darts:
    *_, stage, carried = CASES.get(name, SMOOTH)
    return at_stage(name, devices, stage, json.dumps(carried))


def batch(method: Darts, seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (8, 8, 8, 3), np.uint8)
    both = {"image": images, "label": np.arange(8, dtype=np.int32) % 2}
    return sharding.to_devices(both, method.setting.mesh)


def gradients(method: Darts, state: Any) -> Any:
    purpose = sharding.replicate(np.int32(WEIGHT_STEP), method.setting.mesh)
    given = method.adversary(state, batch(method, 0)) if method.adversary else None
    found = method.programs.gradients(state, batch(method, 0), purpose, of="both", given=given)
    return jax.device_get(found)


@pytest.mark.parametrize("name", CASES)
def test_steps(name: str) -> None:
    one, two = made(name, 1), made(name, 2)
    state = one.init()
    first = gradients(one, state)
    for (path, a), b in zip(
        jax.tree.leaves_with_path(gradients(two, sharding.replicate(state, two.setting.mesh))),
        jax.tree.leaves(first),
        strict=True,
    ):
        near = 2e-4 * max(1e-3, float(np.abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=0, atol=near, err_msg=jax.tree_util.keystr(path))
    # Every architecture parameter learns, and every step draws anew; once more they are the same.
    if one.adversary is None:  # The alphas' gradient is in another pass.
        assert all(np.any(value) for value in first[1].values())

    half_a, half_b = batch(one, 0), batch(one, 1)
    before = snapshot.on_host(state)
    state, sums = one.step(state, half_a, half_b)
    middle = snapshot.on_host(state)
    assert int(middle.step) == int(before.step) + 1 and sums["alpha"] is not None
    state, _ = one.step(state, half_a, half_b)
    again, _ = one.step(sharding.replicate(middle, one.setting.mesh), half_a, half_b)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(state))
    for kind, value in before.alphas.items():
        assert np.any(value != middle.alphas[kind])
    cells = one.cells(middle.alphas)
    edges = mixed.of_config(one.config).chosen(cells)
    assert {len(own) for own in edges.values()} == {6 if "NAS-Bench" in name else 2}


@pytest.mark.parametrize("name", CASES)
def test_a_killed_search_ends_in_the_same_bits(
    name: str, images: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """In the middle of an epoch and, of stages, just before the second."""
    config = config_of(name)
    config.dataset.update(name="folder", path=str(images))
    config.checkpoint_every_steps, config.workers = 2, 0
    stages = config.search.method == "p_darts"
    config.train.max_steps = 10 if stages else 6
    kills = [5, 8] if stages else [3]
    step = Darts.step

    def interrupted(self: Darts, state: Any, *batches: Any) -> Any:
        if kills and int(state.step) == kills[0]:
            raise RuntimeError("killed")
        return step(self, state, *batches)

    def at(self: Any, position: Any) -> Darts:
        return at_stage(name, 1, position.get("stage", 0), json.dumps(position.get("carried")))

    with conftest.few_devices(1), pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages_lib.Stages, "at", at)
        patch.setattr(outputs.pictures, "write_report", lambda _: None)
        whole, parted = str(tmp_path / "whole"), str(tmp_path / "parted")
        with pytest.MonkeyPatch.context() as killing:
            killing.setattr(Darts, "step", interrupted)
            while kills:
                with pytest.raises(RuntimeError, match="killed"):
                    search_lib.search(config, parted)
                kills.pop(0)
        states = [search_lib.search(config, workdir) for workdir in (whole, parted)]
    assert int(states[0].step) == config.train.max_steps
    jax.tree.map(np.testing.assert_array_equal, *map(jax.device_get, states))
    for file in ("alphas.npz", "genotype.json"):
        same = [pathlib.Path(workdir, file).read_bytes() for workdir in (whole, parted)]
        assert same[0] == same[1]
