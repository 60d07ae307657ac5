"""Laws of reading a compiled program's text."""

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from radimagenet_jax.training import compiled

# Lines in the form that the TPU compiler prints, the asynchronous pair included.
TEXT = """\
HloModule jit_train_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(f32[] %x, f32[] %y)
}

ENTRY %main.5 (p0: bf16[128,56,56,64], p1: f32[64]) -> (bf16[128,56,56,64], f32[64]) {
  %p0 = bf16[128,56,56,64]{3,0,2,1:T(8,128)(2,1)} parameter(0)
  %p1 = f32[64]{0:T(128)} parameter(1)
  %fusion.1 = bf16[128,56,56,64]{3,0,2,1:T(8,128)(2,1)} fusion(%p0), kind=kLoop, calls=%add, \
metadata={op_name="jit(train_step)/stage1/relu"}
  %all-reduce = f32[64]{0:T(128)} all-reduce(%p1), replica_groups={{0,1}}, to_apply=%add
  %start = (f32[64]{0:T(128)}, f32[128]{0:T(128)}) all-gather-start(%all-reduce), dimensions={0}
  %done = f32[128]{0:T(128)} all-gather-done(%start)
  ROOT %tuple = (bf16[128,56,56,64], f32[64]) tuple(%fusion.1, %all-reduce)
}
"""


def shown(table):
    console = Console(width=150)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_an_all_reduce_counts_twice_and_an_asynchronous_gather_once():
    # The first line of the gather names its input too.
    assert compiled.collective_bytes(TEXT) == 2 * 64 * 4 + 128 * 4


def test_a_program_without_collectives_exchanges_nothing():
    alone = "\n".join(line for line in TEXT.splitlines() if "all-" not in line)
    assert compiled.collective_bytes(alone) == 0
    assert "none" in shown(compiled.collectives(alone))


def test_the_largest_arrays_are_named_with_what_made_them_and_inputs_left_out():
    table = shown(compiled.buffers(TEXT))
    assert "49.0" in table  # MiB of 128 x 56 x 56 x 64 in two bytes
    assert "bf16[128,56,56,64]" in table
    assert "stage1/relu" in table
    assert "parameter" not in table


def test_collectives_are_counted_by_kind():
    table = shown(compiled.collectives(TEXT))
    assert "all-reduce" in table
    assert "all-gather" in table


PROGRAMS = {
    "one pass": lambda x, y: jnp.sin(x) * y + 1,
    "a sum and its share": lambda x, y: x / (x * y).sum(),
    "products": lambda x, y: (x @ y.T) @ y,
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_traffic_is_what_the_compiler_counts(program):
    x = jax.ShapeDtypeStruct((256, 512), jnp.float32)
    made = jax.jit(PROGRAMS[program]).lower(x, x).compile()
    expected = made.cost_analysis()["bytes accessed"]
    assert compiled.traffic(made.as_text()) == pytest.approx(expected, rel=0.02)


def test_a_loop_moves_what_it_does_as_often_as_it_runs():
    def repeated(times):
        made = jax.jit(lambda x: jax.lax.fori_loop(0, times, lambda _, y: jnp.sin(y @ x), x))
        text = made.lower(jax.ShapeDtypeStruct((128, 128), jnp.float32)).compile().as_text()
        return compiled.traffic(text)

    assert repeated(300) / repeated(30) == pytest.approx(10, rel=0.02)


def test_of_what_a_kernel_cuts_only_what_it_keeps_is_read():
    text = """\
%fused (a: f32[100], b: f32[100], c: f32[100]) -> f32[10] {
  %a = f32[100]{0} parameter(0)
  %b = f32[100]{0} parameter(1)
  %c = f32[100]{0} parameter(2)
  %twice = f32[100]{0} add(%a, %a)
  %first = f32[10]{0} slice(%twice), slice={[0:10]}
  %second = f32[10]{0} slice(%b), slice={[50:60]}
  %third = f32[10]{0} slice(%b), slice={[90:100]}
  %once = f32[]{} reduce(%c, %c), dimensions={0}, to_apply=%add
  %spread = f32[10]{0} broadcast(%once), dimensions={}
  %some = f32[10]{0} add(%first, %second)
  %sum = f32[10]{0} add(%some, %third)
  ROOT %out = f32[10]{0} add(%sum, %spread)
}

ENTRY %main (x: f32[100], y: f32[100], z: f32[100]) -> f32[10] {
  %x = f32[100]{0} parameter(0)
  %y = f32[100]{0} parameter(1)
  %z = f32[100]{0} parameter(2)
  ROOT %fusion = f32[10]{0} fusion(%x, %y, %z), kind=kLoop, calls=%fused
}
"""
    # Ten of x, twenty of y, all of z, and the result.
    assert compiled.traffic(text) == (10 + 20 + 100 + 10) * 4
