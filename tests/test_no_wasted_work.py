"""What a search's step must not do: compile twice, keep what it gave away, reduce too often.

That the loop moves nothing but batches and metrics between host and devices is checked in every
run: `jax.transfer_guard` in `search` and `train` would end it.
"""

import collections
import functools

import jax
import numpy as np
import pytest

from tests import tiny
from unnas_jax.commands import hlo
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import sharding
from unnas_jax.methods.base import Setting
from unnas_jax.methods.darts import Darts
from unnas_jax.runs.search import search
from unnas_jax.tasks import registry


@functools.cache
def built(devices, formulation="auto"):
    config = tiny.config()
    config.network.nodes, config.search.formulation = 1, formulation
    config = config.to_dict()
    mesh = sharding.data_mesh(jax.devices()[:devices])
    task = registry.create(config, tiny.dataset())
    return Darts(Setting(MethodConfig.of(config), task, mesh, 4)), mesh


def batch(mesh):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 16, 16, 3), np.uint8)
    return sharding.to_devices({"image": images, "label": np.zeros(8, np.int32)}, mesh)


@pytest.mark.usefixtures("no_reports")
def test_a_run_compiles_every_program_of_its_steps_once(images, tmp_path):
    config = tiny.quick()
    config.dataset.update(name="folder", path=str(images))
    config.workers = 0
    compiled = collections.Counter()

    def listen(event, duration, **facts):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled[facts["fun_name"]] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        search(config, str(tmp_path / "run"))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    steps = {"gradients", "update_alphas", "update_weights", "scores"}
    counts = {name: compiled[f"jit({name})"] for name in steps}
    assert counts == dict.fromkeys(steps, 1)


def test_a_step_takes_the_memory_of_the_state_before():
    steps, mesh = built(1)
    before = steps.init()
    after, _ = steps.weight_step(before, batch(mesh))
    for kept in ("params", "weights_opt"):
        arrays = [x for x in jax.tree.leaves(getattr(before, kept)) if x.size > 1]
        assert all(x.is_deleted() for x in arrays), kept
    last, _ = steps.alpha_step(after, batch(mesh), batch(mesh))
    assert all(x.is_deleted() for x in jax.tree.leaves(after.alphas))
    assert not any(x.is_deleted() for x in jax.tree.leaves(last))


def test_devices_sum_gradients_once_and_statistics_layer_by_layer():
    # In the form of accelerators, whose kernels' gradients would be many times the parameters'.
    steps, mesh = built(8, "dense")
    state, program = steps.shapes(), steps.lower(batch(mesh))["weights"][0].compile()
    found = hlo.collectives(program.as_text())
    assert set(found) == {"all-reduce"}
    gradients = sum(leaf.size for leaf in jax.tree.leaves((state.params, state.alphas)))
    statistics = [leaf.size for leaf in jax.tree.leaves(state.batch_stats)]
    # Forward and backward one for each batch norm (a mean and a variance), and one at the end.
    assert found["all-reduce"]["count"] <= len(statistics) + 2
    metrics = 4
    assert found["all-reduce"]["bytes"] <= 4 * (gradients + 2 * sum(statistics) + metrics)
