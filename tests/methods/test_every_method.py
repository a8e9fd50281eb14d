"""Every method and remedy takes a step: devices do not matter, and nothing but the state does."""

from typing import Any

import jax
import numpy as np
import pytest

from tests import tiny
from unnas_jax.core import sharding
from unnas_jax.methods import registry
from unnas_jax.methods.base import Setting
from unnas_jax.methods.darts import Darts
from unnas_jax.methods.draws import WEIGHT_STEP
from unnas_jax.runs import checkpoint, validation
from unnas_jax.spaces.darts.candidates import KINDS
from unnas_jax.tasks import registry as tasks

LEFT = ["none", "skip_connect", "sep_conv_3x3"]

# The method, its options, fields of config.network, the stage, and what an earlier one left.
CASES: dict[str, tuple[str, dict, dict, int, Any]] = {
    "pc_darts": ("pc_darts", {"perturbation": "random"}, {"partial_channels": 2}, 0, None),
    "p_darts": (
        "p_darts",
        {"cells_added": (0, 0, 0), "kept": (3, 2), "skip_dropout": (0.0, 0.4, 0.7)},
        {},
        1,
        {kind: [LEFT, LEFT] for kind in KINDS},
    ),
    "gdas": ("gdas", {}, {"operations": ("avg_pool_3x3", *LEFT)}, 0, None),
    "adversarial": (
        "darts",
        {"perturbation": "adversarial", "drop_path": 0.3},
        {"operations": ("skip_connect", "avg_pool_3x3")},
        0,
        None,
    ),
    "remedies": (
        "darts",
        {"mixing": "sigmoid", "zero_one": 10.0, "threshold": 0.85, "auxiliary_decay": "cosine"},
        {"auxiliary_skip": True, "operations": ("skip_connect", "max_pool_3x3")},
        0,
        None,
    ),
}


SMOOTH = ("darts", {}, {"operations": ("skip_connect", "avg_pool_3x3")}, 0, None)
"""Whose loss is a smooth function of the alphas, and has few."""


def made(name: str, devices: int) -> Darts:
    method, options, network, stage, carried = CASES.get(name, SMOOTH)
    config = tiny.config(epochs=6)
    config.network.update(nodes=1, **network)
    config.input.update(crop=8, resize=8)
    registry.choose(config, method, **options)
    validation.validate(config)
    c = config.to_dict()
    mesh = sharding.data_mesh(jax.devices()[:devices])
    setting = Setting(c, tasks.create(c, tiny.dataset()), mesh, 4, stage, 8 * stage, carried)
    found = registry.METHODS[method](setting)
    assert isinstance(found, Darts)
    return found


def batch(method: Darts, seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    both = {"image": images, "label": np.arange(4, dtype=np.int32) % 2}
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
    before = checkpoint.on_host(state)
    state, sums = one.step(state, half_a, half_b)
    middle = checkpoint.on_host(state)
    assert int(middle.step) == int(before.step) + 1 and sums["alpha"] is not None
    state, _ = one.step(state, half_a, half_b)
    again, _ = one.step(sharding.replicate(middle, one.setting.mesh), half_a, half_b)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(state))
    for kind, value in before.alphas.items():
        assert np.any(value != middle.alphas[kind])
    cells = one.cells(middle.alphas)
    assert len(cells.normal) == 2
