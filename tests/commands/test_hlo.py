"""Memory traffic and collectives of programs whose arrays are known."""

import jax
import jax.numpy as jnp

from unnas_jax.commands import hlo
from unnas_jax.core import sharding


def test_collectives_of_a_program_are_counted_with_their_bytes():
    mesh = sharding.data_mesh()
    x = jax.ShapeDtypeStruct((8, 3), jnp.float32, sharding=sharding.split(mesh))
    everywhere = sharding.replicated(mesh)
    summed = jax.jit(lambda x: x.sum(axis=0), out_shardings=everywhere).lower(x).compile()
    assert hlo.collectives(summed.as_text()) == {"all-reduce": {"count": 1, "bytes": 12}}
    gathered = jax.jit(lambda x: x, out_shardings=everywhere).lower(x).compile()
    assert hlo.collectives(gathered.as_text()) == {"all-gather": {"count": 1, "bytes": 8 * 3 * 4}}


def test_the_start_of_an_asynchronous_pair_counts_once():
    text = """
  %ar = (f32[4]{0}, bf16[2,3]{1,0}) all-reduce-start(%a, %b), channel_id=1
  %done = (f32[4]{0}, bf16[2,3]{1,0}) all-reduce-done(%ar)
  %ag = (f32[4]{0}, f32[16]{0}) all-gather-start(%c), channel_id=2
  %user = f32[4]{0} fusion(%all-reduce.1), kind=kLoop
    """
    assert hlo.collectives(text) == {
        "all-reduce": {"count": 1, "bytes": 4 * 4 + 6 * 2},
        "all-gather": {"count": 1, "bytes": 16 * 4},
    }


# What XLA writes for a TPU, shortened: (640, 3) lies with its first dimension along the 128 lanes
# and the other along rows of 4, so it takes 4 * 640 numbers; S(1) is VMEM.
PROGRAM = """
HloModule jit_f

%fused_computation (p: f32[640,3]) -> bf16[1000] {
  %p = f32[640,3]{0,1:T(4,128)} parameter(0)
  ROOT %x = bf16[1000]{0:T(1024)(128)(2,1)} convert(%p), {"estimated_cycles":"7"}
}

ENTRY %main (a: f32[640,3]) -> bf16[1000] {
  %a = f32[640,3]{0,1:T(4,128)} parameter(0)
  %start = (f32[640,3]{0,1:T(4,128)S(1)}, f32[640,3]{0,1:T(4,128)}, u32[]{:S(2)}) copy-start(%a)
  %done = f32[640,3]{0,1:T(4,128)S(1)} copy-done(%start)
  %slice = ((f32[640,3]{0,1:T(4,128)}), f32[8,3]{0,1:T(4,128)S(1)}, s32[]{:S(2)}) slice-start(%a)
  %fast = (f32[16]{0:T(128)S(1)}, f32[16]{0:T(128)}) fusion(%done), {"estimated_cycles":"100"}
  %part = f32[16]{0:T(128)} get-tuple-element(%fast), index=1
  ROOT %out = bf16[1000]{0:T(1024)(2,1)} fusion(%part, /*index=1*/%done), {"estimated_cycles":"20"}
}
"""


def test_only_what_lies_in_hbm_is_counted_with_its_padding():
    whole, part = 4 * 640 * 4, 4 * 128 * 4
    vector, out = 128 * 4, 1024 * 2
    # Copied to VMEM, sliced to it, written by `fast`, read and written by `out`.
    assert hlo.hbm_bytes(PROGRAM) == whole + part + vector + (vector + out)


def test_without_tiles_and_layouts_arrays_take_what_they_have():
    program = """
ENTRY %main {
  %a = f32[3,5] parameter(0)
  ROOT %b = pred[3,5]{1,0} fusion(%a), kind=kLoop
}
"""
    assert hlo.hbm_bytes(program) == 60 + 15


def test_the_cycles_of_a_program_are_those_of_its_own_operations():
    assert hlo.estimated_cycles(PROGRAM) == 120


def test_choices_of_a_branch_are_counted():
    branches = [jnp.sin, jnp.cos, jnp.tanh]
    chosen = jax.jit(lambda k, x: jax.lax.switch(k, branches, x)).lower(1, jnp.ones(3)).compile()
    assert hlo.conditionals(chosen.as_text()) == 1
    assert hlo.conditionals(PROGRAM) == 0
