"""The whole segmenter: clips in, contract out; batches, lengths, padding, gradients, precision."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from model.contracts import ClipPrediction
from model.segmenters.video_kmax import VideoKMax, VideoKMaxConfig
from tests.tiny_models import TINY_SEMANTIC_HEAD, TINY_WITHIN_CLIP, tiny_video_kmax

FIELDS = ("class_logits", "mask_logits", "queries", "mask_embeddings", "pixel_features")
TRACKING = pytest.mark.parametrize("within_clip", [None, TINY_WITHIN_CLIP], ids=["plain", "within-clip"])


def segmenter_of(**changes) -> VideoKMax:
    """Evaluation mode, every branch open: weights that start at zero would hide mistakes."""
    torch.manual_seed(3)
    config = tiny_video_kmax(**changes)
    config = replace(config, query_decoder=replace(config.query_decoder, residual_norm_scale=1.0))
    segmenter = config.build()
    for module in segmenter.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.0)
    for parameter in segmenter.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return segmenter.eval()


def clips_of(b: int, t: int, height: int = 65, width: int = 97) -> torch.Tensor:
    return torch.randint(0, 256, (b, t, 3, height, width), dtype=torch.uint8)


def outputs(prediction: ClipPrediction) -> list[torch.Tensor]:
    """Every tensor a loss may read."""
    layers = [tensor for layer in prediction.auxiliary
              for tensor in (layer.class_logits, layer.mask_logits, layer.pixel_features) if tensor is not None]
    semantic = [prediction.semantic_logits] if prediction.semantic_logits is not None else []
    return [prediction.class_logits, prediction.mask_logits, prediction.pixel_features, *layers, *semantic]


@TRACKING
@pytest.mark.parametrize("frames", [1, 2, 3])
@torch.inference_mode()
def test_a_clip_of_any_length_gives_the_contract(within_clip, frames):
    prediction = segmenter_of(within_clip=within_clip)(clips_of(2, frames))
    assert prediction.class_logits.shape == (2, 16, 7)
    assert prediction.mask_logits.shape == (2, 16, frames, 17, 25)
    assert prediction.pixel_features.shape == (2, 64, frames, 17, 25)
    assert prediction.queries.shape == prediction.mask_embeddings.shape == (2, 16, 64)
    assert prediction.auxiliary == ()
    assert prediction.semantic_logits is None


@TRACKING
@pytest.mark.parametrize("size", [(65, 97), (64, 96)], ids=["odd", "even"])
@torch.inference_mode()
def test_a_batch_of_two_equals_two_batches_of_one(within_clip, size):
    segmenter = segmenter_of(within_clip=within_clip)
    frames = clips_of(2, 2, *size)
    together = segmenter(frames)
    for clip in range(2):
        alone = segmenter(frames[clip:clip + 1])
        for field in FIELDS:
            torch.testing.assert_close(getattr(together, field)[clip], getattr(alone, field)[0], atol=2e-4, rtol=1e-3)


@torch.inference_mode()
def test_frames_of_a_clip_meet_before_the_query_decoder_only_with_within_clip_tracking():
    frames = clips_of(1, 2)
    changed = frames.clone()
    changed[:, 1] = clips_of(1, 1)[0]
    for within_clip in (None, TINY_WITHIN_CLIP):
        pixels = [segmenter_of(within_clip=within_clip)(clip).pixel_features[0, :, 0] for clip in (frames, changed)]
        assert torch.allclose(*pixels, atol=1e-4) == (within_clip is None)


@torch.inference_mode()
def test_what_padding_holds_does_not_matter():
    segmenter = segmenter_of()
    frames = clips_of(1, 2)
    real = torch.ones(1, 2, 65, 97, dtype=torch.bool)
    real[..., 50:, :] = False
    noise = torch.where(real[:, :, None], frames, clips_of(1, 2))
    first = segmenter(frames, real)
    second = segmenter(noise, real)
    assert torch.equal(first.mask_logits, second.mask_logits)
    assert not torch.equal(first.mask_logits, segmenter(frames).mask_logits)


@torch.inference_mode()
def test_bytes_and_floats_of_the_same_values_give_the_same():
    segmenter = segmenter_of()
    frames = clips_of(1, 1)
    assert torch.equal(segmenter(frames).mask_logits, segmenter(frames.float()).mask_logits)


@TRACKING
def test_gradient_reaches_every_parameter_under_supervision(within_clip):
    segmenter = segmenter_of(within_clip=within_clip, semantic_head=TINY_SEMANTIC_HEAD)
    prediction = segmenter(clips_of(2, 2), supervise=True)
    assert prediction.semantic_logits.shape == (2, 7, 2, 17, 25)
    assert len(prediction.auxiliary) == sum(segmenter.config.query_decoder.layers)
    sum((tensor * torch.randn_like(tensor)).sum() for tensor in outputs(prediction)).backward()
    untouched = [name for name, parameter in segmenter.named_parameters()
                 if parameter.grad is None or not parameter.grad.any()]
    assert untouched == []


@TRACKING
@torch.inference_mode()
def test_supervision_changes_no_answer(within_clip):
    segmenter = segmenter_of(within_clip=within_clip, semantic_head=TINY_SEMANTIC_HEAD)
    frames = clips_of(1, 2)
    plain = segmenter(frames)
    supervised = segmenter(frames, supervise=True)
    assert plain.semantic_logits is None
    for field in FIELDS:
        assert torch.equal(getattr(plain, field), getattr(supervised, field))


@TRACKING
@torch.inference_mode()
def test_attention_maps_come_by_name_when_asked_for_and_change_no_answer(within_clip):
    segmenter = segmenter_of(within_clip=within_clip)
    frames = clips_of(1, 2)
    plain = segmenter(frames)
    maps: dict[str, torch.Tensor] = {}
    watched = segmenter(frames, attention=maps)
    assert bool(maps) == (within_clip is not None)
    torch.testing.assert_close(plain.mask_logits, watched.mask_logits, atol=1e-4, rtol=1e-4)


@TRACKING
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains_with_finite_gradients(within_clip, dtype):
    segmenter = tiny_video_kmax(within_clip=within_clip, semantic_head=TINY_SEMANTIC_HEAD).build().train()
    with torch.autocast("cpu", dtype=dtype):
        prediction = segmenter(clips_of(2, 2, 64, 64), supervise=True)
    sum(tensor.float().mean() for tensor in outputs(prediction)).backward()
    assert all(tensor.isfinite().all() for tensor in outputs(prediction))
    assert all(p.grad is None or p.grad.isfinite().all() for p in segmenter.parameters())


@torch.inference_mode()
def test_the_official_arrangement_is_the_same_class_with_other_numbers():
    config = tiny_video_kmax()
    decoder = replace(config.pixel_decoder, blocks=(1, 2, 1, 1), widths=(16, 8, 8, 8),
                      kinds=("axial", "axial", "bottleneck", "bottleneck"))
    queries = replace(config.query_decoder, layers=(2, 2, 2), pixel_depthwise=5)
    segmenter = replace(config, pixel_decoder=decoder, query_decoder=queries).build().eval()
    assert len(segmenter(clips_of(1, 2), supervise=True).auxiliary) == 6


def test_tiny_stays_tiny():
    for within_clip in (None, TINY_WITHIN_CLIP):
        segmenter = tiny_video_kmax(within_clip=within_clip, semantic_head=TINY_SEMANTIC_HEAD).build()
        assert sum(parameter.numel() for parameter in segmenter.parameters()) < 1_200_000


def test_wrong_input_is_refused_with_the_shapes():
    segmenter = segmenter_of()
    with pytest.raises(ValueError, match="clip of one frame"):
        segmenter(clips_of(1, 1)[0])
    with pytest.raises(ValueError, match="real_pixels"):
        segmenter(clips_of(1, 2), torch.ones(1, 2, 64, 97, dtype=torch.bool))


def test_impossible_configs_are_refused():
    with pytest.raises(ValueError, match="num_classes=0"):
        VideoKMaxConfig(num_classes=0)
    with pytest.raises(ValueError, match="pixel_std"):
        VideoKMaxConfig(num_classes=3, pixel_std=0.0)
