"""The ahead-of-time check: of slices, and of a whole tiny config."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.conftest import ROOT
from unnas_jax.commands import compile as compile_lib
from unnas_jax.core import sharding
from unnas_jax.core.errors import UserError


@pytest.mark.parametrize("topology", ["v5e", "v5e:four", "h100:2x2", "v5e:2x2x2x2"])
def test_topologies_that_are_none_are_refused(topology):
    with pytest.raises(UserError, match="CHIP"):
        compile_lib.slice_mesh(topology)


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
    assert compile_lib._bytes(tree) == 12 + 4


# Minutes: libtpu is not installed by the extra `test`, but where people ask for it.
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
