"""The whole segmenter: clips in, contract out; batches, lengths, padding, gradients, precision."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from jobs.config import from_json, to_json
from model.backbone import BackboneConfig
from model.contracts import ClipPrediction
from model.query_decoders.mask2former import Mask2FormerDecoderConfig
from model.segmenters import SegmenterConfig
from model.segmenters.tube_link import TubeLink, TubeLinkConfig
from tests.tiny_models import TINY_DEFORMABLE_TRAJECTORIES, TINY_KNET, tiny_tube_link, tiny_video_kmax

FIELDS = ("class_logits", "mask_logits", "queries", "mask_embeddings", "pixel_features")
TRACKING = pytest.mark.parametrize("within_clip", [None, TINY_DEFORMABLE_TRAJECTORIES], ids=["plain", "within-clip"])


def segmenter_of(**changes) -> TubeLink:
    """Evaluation mode, every branch open: scales and offsets that start at zero would hide mistakes."""
    torch.manual_seed(3)
    segmenter = tiny_tube_link(**changes).build()
    for module in segmenter.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.0)
    for name, parameter in segmenter.named_parameters():
        if not parameter.any() or name.endswith(".scale"):
            nn.init.normal_(parameter, std=0.1)
    return segmenter.eval()


def clips_of(b: int, t: int, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randint(0, 256, (b, t, 3, height, width), dtype=torch.uint8)


def outputs(prediction: ClipPrediction) -> list[torch.Tensor]:
    """Every tensor a loss may read."""
    return [tensor for layer in (prediction, *prediction.auxiliary)
            for tensor in (layer.class_logits, layer.mask_logits)]


@TRACKING
@pytest.mark.parametrize("frames", [1, 2, 3])
@torch.inference_mode()
def test_a_clip_of_any_length_gives_the_contract(within_clip, frames):
    prediction = segmenter_of(within_clip=within_clip)(clips_of(2, frames))
    assert prediction.class_logits.shape == (2, 16, 7)
    assert prediction.mask_logits.shape == (2, 16, frames, 16, 24)
    assert prediction.pixel_features.shape == (2, 64, frames, 16, 24)
    assert prediction.queries.shape == (2, 16, 64)
    assert prediction.auxiliary == ()


@torch.inference_mode()
def test_clips_are_aligned_by_the_raw_queries():
    prediction = segmenter_of()(clips_of(1, 2))
    assert prediction.alignment is prediction.queries
    dots = torch.einsum("bnd,bdthw->bnthw", prediction.mask_embeddings, prediction.pixel_features)
    torch.testing.assert_close(dots, prediction.mask_logits)
    assert not torch.allclose(prediction.queries.mean(-1), torch.zeros(1, 16), atol=1e-3)     # not the normed ones


@TRACKING
@pytest.mark.parametrize("size", [(64, 96), (65, 97)], ids=["even", "odd"])
@torch.inference_mode()
def test_a_batch_of_two_equals_two_batches_of_one(within_clip, size):
    segmenter = segmenter_of(within_clip=within_clip)
    frames = clips_of(2, 2, *size)
    together = segmenter(frames)
    for clip in range(2):
        alone = segmenter(frames[clip:clip + 1])
        for field in FIELDS:
            torch.testing.assert_close(getattr(together, field)[clip], getattr(alone, field)[0], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("frames", [1, 2])
def test_k_nets_decoder_gives_the_contract_and_gradient_reaches_every_parameter(frames):
    segmenter = segmenter_of(query_decoder=TINY_KNET)
    prediction = segmenter(clips_of(2, frames), supervise=True)
    assert prediction.mask_logits.shape == (2, 16, frames, 16, 24)
    assert len(prediction.auxiliary) == TINY_KNET.layers
    torch.testing.assert_close(torch.einsum("bnd,bdthw->bnthw", prediction.mask_embeddings, prediction.pixel_features),
                               prediction.mask_logits)
    sum((tensor * torch.randn_like(tensor)).sum() for tensor in outputs(prediction)).backward()
    assert [name for name, parameter in segmenter.named_parameters()
            if parameter.grad is None or not parameter.grad.any()] == []


@torch.inference_mode()
def test_frames_of_a_clip_meet_before_the_query_decoder_only_with_within_clip_tracking():
    frames = clips_of(1, 2)
    changed = frames.clone()
    changed[:, 1] = clips_of(1, 1)[0]
    for within_clip in (None, TINY_DEFORMABLE_TRAJECTORIES):
        pixels = [segmenter_of(within_clip=within_clip)(clip).pixel_features[0, :, 0] for clip in (frames, changed)]
        assert torch.allclose(*pixels, atol=1e-4) == (within_clip is None)


@torch.inference_mode()
def test_within_clip_tracking_starts_as_the_segmenter_without_it():
    """So that weights trained without it give their own results on the first day."""
    frames = clips_of(1, 2)
    plain = tiny_tube_link().build().eval()
    tracking = tiny_tube_link(within_clip=TINY_DEFORMABLE_TRAJECTORIES).build().eval()
    missing, unexpected = tracking.load_state_dict(plain.state_dict(), strict=False)
    assert missing
    assert unexpected == []
    torch.testing.assert_close(tracking(frames).mask_logits, plain(frames).mask_logits, atol=1e-3, rtol=1e-3)


@torch.inference_mode()
def test_what_padding_holds_does_not_matter():
    segmenter = segmenter_of()
    frames = clips_of(1, 2)
    real = torch.ones(1, 2, 64, 96, dtype=torch.bool)
    real[..., 50:, :] = False
    noise = torch.where(real[:, :, None], frames, clips_of(1, 2))
    first = segmenter(frames, real)
    second = segmenter(noise, real)
    assert torch.equal(first.mask_logits, second.mask_logits)
    assert not torch.equal(first.mask_logits, segmenter(frames).mask_logits)


@torch.inference_mode()
def test_frames_are_normalised_channel_by_channel():
    segmenter = segmenter_of()
    seen = []
    segmenter.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mean, std = (torch.tensor(values)[:, None, None] for values in (segmenter.config.pixel_mean,
                                                                    segmenter.config.pixel_std))
    segmenter((mean + 2 * std).expand(1, 1, 3, 32, 32))
    torch.testing.assert_close(seen[0], torch.full((1, 3, 32, 32), 2.0))


@TRACKING
def test_gradient_reaches_every_parameter_under_supervision(within_clip):
    segmenter = segmenter_of(within_clip=within_clip)
    prediction = segmenter(clips_of(2, 2), supervise=True)
    assert len(prediction.auxiliary) == segmenter.config.query_decoder.layers      # one before the first layer
    sum((tensor * torch.randn_like(tensor)).sum() for tensor in outputs(prediction)).backward()
    untouched = [name for name, parameter in segmenter.named_parameters()
                 if parameter.grad is None or not parameter.grad.any()]
    assert untouched == []


@TRACKING
@torch.inference_mode()
def test_neither_supervision_nor_attention_maps_change_an_answer(within_clip):
    segmenter = segmenter_of(within_clip=within_clip)
    frames = clips_of(1, 2)
    plain = segmenter(frames)
    supervised = segmenter(frames, supervise=True)
    maps: dict[str, torch.Tensor] = {}
    watched = segmenter(frames, attention=maps)
    assert bool(maps) == (within_clip is not None)
    for field in FIELDS:
        assert torch.equal(getattr(plain, field), getattr(supervised, field))
        torch.testing.assert_close(getattr(plain, field), getattr(watched, field), atol=1e-3, rtol=1e-3)


@TRACKING
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains_with_finite_gradients(within_clip, dtype):
    segmenter = tiny_tube_link(within_clip=within_clip).build().train()
    with torch.autocast("cpu", dtype=dtype):
        prediction = segmenter(clips_of(2, 2), supervise=True)
    sum(tensor.float().mean() for tensor in outputs(prediction)).backward()
    assert all(tensor.isfinite().all() for tensor in outputs(prediction))
    assert all(p.grad is None or p.grad.isfinite().all() for p in segmenter.parameters())


def test_frozen_statistics_stay_and_the_affine_part_learns():
    config = tiny_tube_link(backbone=BackboneConfig(name="test_resnet", frozen_statistics=True))
    segmenter = config.build().train()
    before = {name: value.clone() for name, value in segmenter.named_buffers()}
    segmenter(clips_of(1, 2)).class_logits.sum().backward()
    assert all(torch.equal(before[name], value) for name, value in segmenter.named_buffers())
    norm = next(module for module in segmenter.backbone.modules() if isinstance(module, nn.BatchNorm2d))
    assert norm.weight.grad.any()


@pytest.mark.parametrize("config", [tiny_tube_link(stuff_classes=(1, 4), within_clip=TINY_DEFORMABLE_TRAJECTORIES),
                                    tiny_tube_link(query_decoder=TINY_KNET), TubeLinkConfig(num_classes=3),
                                    tiny_video_kmax()], ids=["tiny", "K-Net", "default", "kmax"])
def test_a_card_rebuilds_the_config_of_its_own_kind(config):
    assert from_json(SegmenterConfig, to_json(config)) == config


def test_a_card_from_before_query_decoders_had_kinds_names_masked_attention():
    config = tiny_tube_link()
    card = to_json(config)
    del card["query_decoder"]["kind"]
    assert from_json(SegmenterConfig, card) == config


@pytest.mark.parametrize(("changes", "complaint"), [
    ({"num_classes": 0}, "num_classes=0"), ({"stuff_classes": (6,)}, "classes 0 to 5"),
    ({"stuff_classes": (1, 1)}, "each once"),
    ({"pixel_std": (1, 0, 1)}, "pixel_std"),
    ({"query_decoder": Mask2FormerDecoderConfig(num_queries=1), "stuff_classes": (1, 2)}, "num_queries=1"),
])
def test_impossible_settings_are_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        tiny_tube_link(**changes)


def test_official_class_rows_number_things_before_stuff():
    assert tiny_tube_link(stuff_classes=(1, 4)).things_first == (0, 2, 3, 5, 1, 4)
    assert tiny_tube_link(stuff_classes=(4, 5)).things_first == tiny_tube_link().things_first == ()


def test_clips_of_another_layout_are_refused_with_the_layout():
    segmenter = segmenter_of()
    with pytest.raises(ValueError, match="b t 3 height width"):
        segmenter(clips_of(1, 2)[0])
    with pytest.raises(ValueError, match="real_pixels of shape"):
        segmenter(clips_of(1, 2), torch.ones(1, 1, 64, 96, dtype=torch.bool))


@pytest.mark.parametrize("decoder", [tiny_tube_link().query_decoder, TINY_KNET], ids=["masked attention", "K-Net"])
def test_a_tiny_segmenter_overfits_a_clip(decoder):
    """Gradients point the right way through masks that are cut from masks: two squares are learnt by heart."""
    torch.manual_seed(0)
    config = tiny_tube_link(query_decoder=decoder)
    segmenter = replace(config, query_decoder=replace(config.query_decoder, num_queries=2)).build().train()
    frames = torch.full((1, 2, 3, 64, 64), 60, dtype=torch.uint8)
    target = torch.zeros(1, 2, 2, 16, 16)
    for query, (row, column) in enumerate([(8, 8), (36, 40)]):
        frames[..., query, row:row + 20, column:column + 16] = 250
        target[:, query, :, row // 4:row // 4 + 5, column // 4:column // 4 + 4] = 1
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=2e-3)
    for _ in range(30):
        prediction = segmenter(frames, supervise=True)
        loss = sum(nn.functional.binary_cross_entropy_with_logits(layer.mask_logits, target)
                   for layer in (prediction, *prediction.auxiliary))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = prediction.mask_logits > 0
    assert (found & target.bool()).sum() / (found | target.bool()).sum() > 0.8
