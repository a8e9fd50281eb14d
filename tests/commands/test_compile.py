"""The ahead-of-time check: of slices, and of a whole tiny config."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests import tiny, tiny_training
from tests.conftest import ROOT
from unnas_jax.commands import compile as compile_lib
from unnas_jax.commands import slices
from unnas_jax.config.schema import SearchConfig
from unnas_jax.config.sections import Training
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError
from unnas_jax.learning import trainer
from unnas_jax.methods import registry
from unnas_jax.tasks import registry as tasks


@pytest.mark.parametrize("topology", ["v5e", "v5e:four", "h100:2x2", "v5e:2x2x2x2"])
def test_topologies_that_are_none_are_refused(topology):
    with pytest.raises(UserError, match="CHIP"):
        slices.mesh_of(topology)


def test_traced_for_a_slice_a_program_takes_the_slices_forms():
    mesh = jax.sharding.AbstractMesh(
        (4,),
        ("data",),
        abstract_device=jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu"),
    )
    assert sharding.platform() == "cpu"
    with jax.sharding.use_abstract_mesh(mesh):
        assert sharding.platform() == "tpu"


def test_the_bytes_of_a_tree_are_those_of_its_arrays():
    tree = {"a": jax.ShapeDtypeStruct((3, 4), np.int8), "b": jax.ShapeDtypeStruct((), np.float32)}
    assert sharding.bytes_of(tree) == 12 + 4


def test_states_of_all_seeds_and_batches_ahead_are_part_of_what_is_needed():
    """Five seeds, two at a time, on four chips: three states, the last one counted as a whole one.

    While a step runs, the batches of the four steps after it are there.
    """
    mesh = sharding.data_mesh(jax.devices()[:4])
    c, task = tiny_training.config(batch_size=8).to_dict(), tiny_training.Plain()
    batch = trainer.batch_shapes(Training.of(c), task, 2, mesh)
    assert batch["image"].shape == (2, 8, 16, 16, 3)
    assert batch["image"].sharding.shard_shape(batch["image"].shape) == (2, 2, 16, 16, 3)
    images = 2 * 2 * (16 * 16 * 3 + 4)  # Of two seeds on one chip, with an int32 label each.
    state = {"w": jax.ShapeDtypeStruct((2, 100), np.float32)}
    stays = compile_lib.resident(state, 3, batch, 3, mesh)
    assert stays.own == 800 + images
    assert stays.own + stays.waiting == 3 * 800 + 3 * (1 + 4) * images
    programs = [
        # The arguments with their padding, and a small program which is given a part alone.
        {"arguments": stays.own + 7, "outputs": 10, "temporaries": 1000, "code": 5},
        {"arguments": 3, "outputs": 20, "temporaries": 0, "code": 6},
    ]
    assert compile_lib.needed(programs, stays) == stays.own + 7 + 1010 + 11 + stays.waiting


# Minutes: libtpu is not installed by the extra `test`, but where people ask for it.
def test_a_later_stage_has_fewer_operations_on_more_cells():
    """As many as P-DARTS leaves; of equal alphas the first ones go."""
    config = tiny.config(epochs=3)
    config.network.nodes = 1
    registry.choose(config, "p_darts", cells_added=(0, 0, 1), kept=(5, 3))
    c, mesh = SearchConfig.of(config.to_dict()), sharding.data_mesh(jax.devices()[:1])
    task = tasks.create(config.to_dict(), tiny.dataset())
    setting = compile_lib.setting_of(c, task, mesh, 3)
    assert (setting.stage, setting.first_step) == (2, 2)
    left = ["sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"]
    assert setting.carried == {kind: [left] * 2 for kind in ("normal", "reduce")}
    with pytest.raises(UserError, match="--stage=4: the method 'p_darts' has 3 stages"):
        compile_lib.setting_of(c, task, mesh, 4)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_a_tiny_search_compiles_for_a_slice_that_is_not_here(tmp_path):
    command = [sys.executable, "main.py", "compile", "--config=tests/configs/tiny.py"]
    command += [f"--config.dataset.path={tmp_path}", "--topology=v5e:2x2", "--quick", "--json"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["fits"] and result["chips"] == 4
    weights = result["steps"]["weights"][0]
    assert weights["collectives"]["all-reduce"]["count"] > 0
    assert weights["flops"] > 0 and weights["bytes_accessed"] > 0 and weights["cycles"] > 0
    # XLA counts arrays without the padding of their tiles, which HBM has.
    assert weights["hbm_bytes"] > weights["bytes_accessed"] / 2
