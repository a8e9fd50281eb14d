"""The ahead-of-time check: collectives in programs whose text is known, and a whole tiny config."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import ROOT
from unnas_jax import compile as compile_lib
from unnas_jax import sharding
from unnas_jax.errors import UserError


def test_collectives_of_a_program_are_counted_with_their_bytes():
    mesh = sharding.data_mesh()
    x = jax.ShapeDtypeStruct((8, 3), jnp.float32, sharding=sharding.split(mesh))
    everywhere = sharding.replicated(mesh)
    summed = jax.jit(lambda x: x.sum(axis=0), out_shardings=everywhere).lower(x).compile()
    assert compile_lib.collectives(summed.as_text()) == {"all-reduce": {"count": 1, "bytes": 12}}
    gathered = jax.jit(lambda x: x, out_shardings=everywhere).lower(x).compile()
    assert compile_lib.collectives(gathered.as_text()) == {
        "all-gather": {"count": 1, "bytes": 8 * 3 * 4}
    }


def test_the_start_of_an_asynchronous_pair_counts_once():
    hlo = """
  %ar = (f32[4]{0}, bf16[2,3]{1,0}) all-reduce-start(%a, %b), channel_id=1
  %done = (f32[4]{0}, bf16[2,3]{1,0}) all-reduce-done(%ar)
  %ag = (f32[4]{0}, f32[16]{0}) all-gather-start(%c), channel_id=2
  %user = f32[4]{0} fusion(%all-reduce.1), kind=kLoop
    """
    assert compile_lib.collectives(hlo) == {
        "all-reduce": {"count": 1, "bytes": 4 * 4 + 6 * 2},
        "all-gather": {"count": 1, "bytes": 16 * 4},
    }


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
    command = [sys.executable, "-m", "unnas_jax.compile", "--config=tests/configs/tiny.py"]
    command += [f"--config.dataset.path={tmp_path}", "--topology=v5e:2x2", "--quick", "--json"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["fits"] and result["chips"] == 4
    weights = result["steps"]["weights"][0]
    assert weights["collectives"]["all-reduce"]["count"] > 0
    assert weights["flops"] > 0 and weights["bytes_accessed"] > 0
