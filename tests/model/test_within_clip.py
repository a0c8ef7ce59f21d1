"""Within-clip tracking: shapes, laws, and the ablations of table 5."""

from __future__ import annotations

import pytest
import torch

from model.within_clip import WithinClip, WithinClipConfig

CHANNELS = (8, 48, 40, 96)


def module_of(**changes) -> WithinClip:
    settings = {"dim": 32, "heads": 4, "points": 2, "ffn": 32} | changes
    torch.manual_seed(1)
    module = WithinClip(WithinClipConfig(**settings), channels=CHANNELS).eval()
    for layer in module.spatial_layers:     # as after some training, when offsets depend on queries
        torch.nn.init.normal_(layer.attention.sampling_offsets.weight, std=0.1)
        torch.nn.init.normal_(layer.attention.attention_weights.weight, std=0.1)
    return module


def maps_of(frames: int, *, height: int = 65, width: int = 97) -> list[torch.Tensor]:
    return [torch.randn(frames, channels, -(-height // stride), -(-width // stride))
            for channels, stride in zip(CHANNELS, (4, 8, 16, 32))]


@pytest.mark.parametrize("frames", [1, 2, 3])
@torch.no_grad()
def test_shapes_are_kept_and_stride_4_passes_through(frames):
    maps = maps_of(2 * frames)
    result = module_of()(maps, frames=frames)
    assert [one.shape for one in result] == [one.shape for one in maps]
    assert result[0] is maps[0]
    assert not any(torch.equal(one, other) for one, other in zip(result[1:], maps[1:]))


@pytest.mark.parametrize("changes", [{}, {"attention": "full"}, {"attention": None}, {"arrangement": "sequential"}],
                         ids=str)
@torch.no_grad()
def test_a_batch_of_two_equals_two_batches_of_one(changes):
    module = module_of(**changes)
    maps = maps_of(4)
    both = module(maps, frames=2)
    first, second = (module([one[2 * clip:2 * clip + 2] for one in maps], frames=2) for clip in range(2))
    for together, one, other in zip(both, first, second):
        torch.testing.assert_close(together, torch.cat([one, other]), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_frames_affect_each_other_only_through_trajectories():
    maps = maps_of(2)
    changed = [torch.cat([one[:1], torch.randn_like(one[1:])]) for one in maps]
    for changes, meet in [({}, True), ({"attention": None}, False), ({"trajectory_strides": ()}, False),
                          ({"trajectory_layers_per_block": 0}, False)]:
        module = module_of(**changes)
        first, second = (module(one, frames=2)[3][0] for one in (maps, changed))
        assert torch.allclose(first, second, atol=1e-5) != meet


@torch.no_grad()
def test_arrangement_changes_the_order_of_layers_and_no_weight():
    interleaved = module_of()
    sequential = module_of(arrangement="sequential")
    assert interleaved.state_dict().keys() == sequential.state_dict().keys()
    kinds = [[type(step).__name__[0] for step in module._steps()] for module in (interleaved, sequential)]
    assert kinds == [["D", "T", "D", "T"], ["D", "D", "T", "T"]]
    maps = maps_of(2)
    assert not torch.allclose(interleaved(maps, frames=2)[3], sequential(maps, frames=2)[3], atol=1e-3)


def test_depth_follows_the_config():
    module = module_of(blocks=3, spatial_layers_per_block=2, trajectory_layers_per_block=1)
    assert len(module.spatial_layers) == 6
    assert [len(stack.layers) for stack in module.trajectory_stacks] == [1, 1, 1]


@torch.no_grad()
def test_one_frame_per_clip_works_as_a_clip():
    module = module_of()
    maps = maps_of(2)
    alone = [module([one[frame:frame + 1] for one in maps], frames=1)[2] for frame in range(2)]
    torch.testing.assert_close(module(maps, frames=1)[2], torch.cat(alone), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_attention_maps_come_for_every_level_whose_frames_meet():
    maps = maps_of(2)
    attention: dict[str, torch.Tensor] = {}
    result = module_of()(maps, frames=2, attention=attention)
    torch.testing.assert_close(result[3], module_of()(maps, frames=2)[3], atol=1e-4, rtol=1e-4)
    assert sorted(attention) == ["stride16.height", "stride16.width", "stride32.height", "stride32.width"]
    assert attention["stride16.height"].shape == (7, 4, 10, 2, 5)     # columns, heads, (t h), t, h
    for one in attention.values():
        torch.testing.assert_close(one.sum(-1), torch.ones(one.shape[:-1]))


@pytest.mark.parametrize("changes", [{}, {"spatial_layers_per_block": 0}, {"trajectory_layers_per_block": 0}], ids=str)
def test_gradient_reaches_every_parameter(changes):
    module = module_of(**changes)
    sum((one * torch.randn_like(one)).sum() for one in module(maps_of(2), frames=2)[1:]).backward()
    untouched = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    # a softmax over keys does not change when all of its scores move alike
    assert [name for name in untouched if not name.endswith(".k.bias")] == []


def test_deformable_layers_start_as_the_official_ones():
    module = WithinClip(WithinClipConfig(dim=32, heads=4), channels=CHANNELS)
    for layer in module.spatial_layers:
        assert not layer.attention.sampling_offsets.weight.any()
        assert layer.attention.sampling_offsets.bias.abs().max() == 4


def test_impossible_configs_are_refused():
    for changes, message in [({"dim": 30}, "dim=30"), ({"blocks": 0}, "blocks=0"), ({"attention": "axle"}, "'axle'"),
                             ({"arrangement": "random"}, "'random'"), ({"trajectory_strides": (4,)}, r"\(4,\)"),
                             ({"strides": (8, 64)}, "64")]:
        with pytest.raises(ValueError, match=message):
            WithinClipConfig(**changes)


def test_frames_that_do_not_make_whole_clips_are_refused():
    with pytest.raises(ValueError, match="3 frames do not divide into clips of 2"):
        module_of()(maps_of(3), frames=2)
