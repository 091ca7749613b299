"""Reading collectives from HLO text as CPU and TPU write it: lines of real programs; test_devices.py reads whole ones."""

from imagenet_jax.hlo import Collective, collectives, traffic

TEXT = """
%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%body.3 (carry: (f32[8])) -> (f32[8]) {
  %all-reduce.7 = f32[8]{0} all-reduce(%x), channel_id=5, replica_groups={{0,1}}, to_apply=%add
}

%async_collective_fusion.1 (param_0: bf16[3,8]) -> bf16[3,64] {
  %all-gather.11 = bf16[3,64]{1,0:T(8,128)(2,1)} all-gather(%param_0), channel_id=1, dimensions={1}
}

%async_collective_fusion.2 (param_0: bf16[3,8]) -> bf16[3,64] {
  %all-gather.13 = bf16[3,64]{1,0:T(8,128)(2,1)S(1)} all-gather(%param_0), channel_id=1, dimensions={1}
}

%all-reduce-scatter.2 (input_0: f32[4,64]) -> f32[4,8] {
  %all-reduce.46 = f32[4,64]{1,0:T(8,128)} all-reduce(%input_0), channel_id=2, to_apply=%add
}

ENTRY %main.9_spmd (p: f32[16]) -> f32[16] {
  %all-reduce.1 = (f32[16]{0}, /*index=1*/s32[]) all-reduce(%p, %q), channel_id=3, to_apply=%add
  %all-reduce.2 = s32[] all-reduce(%q), channel_id=3, to_apply=%add
  %get-tuple-element = f32[16]{0} get-tuple-element(%all-reduce.1), index=0
  %all-gather-start = (f32[2,4]{1,0}, f32[16,4]{1,0}) all-gather-start(%p), channel_id=4, dimensions={0}
  %all-gather-done = f32[16,4]{1,0} all-gather-done(%all-gather-start)
  ROOT %collective-permute = pred[6]{0} collective-permute(%p), source_target_pairs={{0,1}}
}
"""


def test_every_operation_is_counted_once_with_its_bytes():
    assert collectives(TEXT) == [
        Collective("all-reduce", 32, False),
        Collective("all-gather", 3 * 64 * 2, False),
        Collective("reduce-scatter", 4 * 64 * 4, False),
        Collective("all-reduce", 16 * 4 + 4, True),
        Collective("all-reduce", 4, True),  # a CPU gives one channel to many
        Collective("all-gather", 16 * 4 * 4, True),
        Collective("collective-permute", 6, True),
    ]


def test_traffic_leaves_out_what_is_on_the_chip():
    """As a TPU writes it: 800 bytes read, copied to the chip, 400 of them sliced there, multiplied there, and 200 written."""
    text = """
HloModule jit_f

ENTRY %main.1_spmd (param: f32[200]) -> bf16[100] {
  %param = f32[200]{0:T(256)} parameter(0)
  %copy-start = (f32[200]{0:T(256)S(1)}, f32[200]{0:T(256)}, u32[]{:S(2)}) copy-start(%param)
  %copy-done = f32[200]{0:T(256)S(1)} copy-done(%copy-start)
  %slice-start = ((f32[200]{0:T(256)}), f32[100]{0:T(128)S(1)}, s32[]{:S(2)}) slice-start(%param), slice={[0:100]}
  %slice-done = f32[100]{0:T(128)S(1)} slice-done(%slice-start)
  %fusion = bf16[100]{0:T(128)S(1)} fusion(%copy-done, %slice-done), kind=kLoop, calls=%fused
  ROOT %copy = bf16[100]{0:T(128)} copy(%fusion)
}
"""
    assert traffic(text) == 800 + 400 + 200
