"""Laws of VITA's head: batches, order, and windows, which equal the plain formula with masks over all tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from einops import rearrange
from torch.testing import assert_close

from jobs.config import from_json, to_json
from model.contracts import VideoQueries
from model.cross_clip import CrossClipConfig
from model.cross_clip.vita import VitaHead, VitaHeadConfig, in_windows
from model.layers.attention import EncoderLayer

CONFIG = VitaHeadConfig(num_classes=6, dim=64, embedding=32, pixel_dim=64, frame_queries=16, num_queries=5, heads=4,
                        ffn=48, encoder_layers=3, decoder_layers=2, window=4)
FIELDS = ("class_logits", "mask_embeddings", "queries", "clip_similarity", "video_similarity")


def head_of(**changes) -> VitaHead:
    torch.manual_seed(4)
    return replace(CONFIG, **changes).build().eval()


def queries_of(tensor: torch.Tensor) -> VideoQueries:
    return VideoQueries(queries=tensor, mask_embeddings=tensor, class_logits=tensor)


def frames_of(b: int, k: int) -> torch.Tensor:
    return torch.randn(b, k, CONFIG.frame_queries, 64)


@pytest.mark.parametrize("frames", [1, 3, 4, 9])
@torch.no_grad()
def test_a_video_of_any_length_gives_one_prediction_per_layer(frames):
    predictions = head_of()(queries_of(frames_of(2, frames)))
    assert len(predictions) == CONFIG.decoder_layers
    for prediction in predictions:
        assert prediction.class_logits.shape == (2, 5, 7)
        assert prediction.mask_embeddings.shape == (2, frames, 5, 32)
        assert prediction.queries.shape == (2, frames, 5, 64)
        assert prediction.clip_similarity.shape == (2, frames, 16, 64)
        assert prediction.video_similarity.shape == (2, 5, 64)


@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_a_batch_of_two_videos_equals_two_of_one(training):
    head = head_of().train(training)
    both = frames_of(2, 7)
    together = head(queries_of(both))
    for video in range(2):
        for layer, alone in zip(together, head(queries_of(both[video:video + 1])), strict=True):
            for name in FIELDS:
                assert_close(getattr(alone, name)[0], getattr(layer, name)[video], atol=1e-4, rtol=1e-4)


def windows_with_masks(layer: EncoderLayer, tokens: torch.Tensor, *, window: int, shifted: bool) -> torch.Tensor:
    """The published method for one video, tokens k n c: pad time, roll it by half a window, mask other windows."""
    frames, n, _ = tokens.shape
    length = math.ceil(frames / window) * window
    half = math.ceil(window / 2)
    time = torch.arange(length).roll(half) if shifted else torch.arange(length)     # the frame at each position
    position = torch.arange(length)
    allowed = position[:, None] // window == position // window
    if shifted:     # the wrapped window holds the last frames, then the first
        wrapped = (position < half)[:, None] != (position < half)
        allowed &= ~(wrapped & (position < window)[:, None] & (position < window))
    allowed &= time < frames
    order = time.argsort()
    allowed = allowed[order][:, order][:frames, :frames]                            # by frame, real ones only
    allowed = allowed.repeat_interleave(n, 0).repeat_interleave(n, 1)
    return rearrange(layer(rearrange(tokens, "k n c -> 1 (k n) c"), allowed=allowed[None]), "1 (k n) c -> k n c", n=n)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("window", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7, 8, 11])
@torch.no_grad()
def test_windows_equal_the_formula_with_masks_over_the_whole_video(frames, window, shifted):
    layer = EncoderLayer(16, heads=2, ffn=8)
    tokens = torch.randn(2, frames, 3, 16)
    result = in_windows(layer, tokens, window=window, first=window // 2 if shifted else 0)
    for ours, video in zip(result, tokens):
        assert_close(ours, windows_with_masks(layer, video, window=window, shifted=shifted), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_one_window_over_the_video_is_plain_attention_over_all_its_tokens():
    layer = EncoderLayer(16, heads=2, ffn=8)
    tokens = torch.randn(2, 5, 3, 16)
    everything = rearrange(layer(rearrange(tokens, "b k n c -> b (k n) c")), "b (k n) c -> b k n c", k=5)
    for window in (0, 5, 6, 9):
        assert_close(in_windows(layer, tokens, window=window, first=0), everything)


@torch.no_grad()
def test_windows_shift_in_every_second_layer_at_inference_and_in_training_on_request():
    tokens = frames_of(1, 8)
    plain = head_of().train()
    shifting = head_of(shift_in_training=True).train()
    assert torch.equal(shifting.encode(tokens), head_of().encode(tokens))
    assert not torch.allclose(plain.encode(tokens), shifting.encode(tokens), atol=1e-3)
    changed = torch.cat([tokens[:, :4], frames_of(1, 4)], 1)        # the second window
    assert torch.equal(plain.encode(changed)[:, :4], plain.encode(tokens)[:, :4])
    reached = (shifting.encode(changed) - shifting.encode(tokens)).abs().amax((0, 2, 3)) > 1e-4
    assert reached[2:4].all()                                       # through the window over frames 2 to 5
    assert head_of(encoder_layers=1, shift_in_training=True).encode(changed)[:, :4].equal(
        head_of(encoder_layers=1).encode(tokens)[:, :4])            # the first layer never shifts


@torch.no_grad()
def test_within_a_window_the_order_of_frames_does_not_matter():
    head = head_of(window=0)
    tokens = frames_of(1, 6)
    order = torch.randperm(6)
    straight = head(queries_of(tokens))[-1]
    mixed = head(queries_of(tokens[:, order]))[-1]
    for name in ("class_logits", "video_similarity"):
        assert_close(getattr(mixed, name), getattr(straight, name), atol=1e-4, rtol=1e-4)
    assert_close(mixed.clip_similarity, straight.clip_similarity[:, order], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_queries_of_a_frame_differ_by_their_learned_positions():
    """The result stays the same if queries and positions are permuted together, and changes otherwise."""
    head = head_of()
    tokens = frames_of(1, 6)
    order = torch.randperm(16)
    straight, alone = (head(queries_of(part))[-1].class_logits for part in (tokens, tokens[:, :, order]))
    assert not torch.allclose(alone, straight, atol=1e-3)
    head.frame_query_positions.copy_(head.frame_query_positions[order].clone())
    assert_close(head(queries_of(tokens[:, :, order]))[-1].class_logits, straight, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_head_that_prunes_does_not_read_queries_of_no_object():
    """Half of each frame's queries are objects, and the values of the other half do not matter."""
    tokens = frames_of(2, 5)
    classes = torch.zeros(2, 5, 16, 7)
    objects = torch.rand(2, 5, 16).argsort(-1) < 8
    classes[..., -1] = torch.where(objects, -3.0, 3.0)
    other = torch.where(objects[..., None], tokens, frames_of(2, 5))

    def classes_of(head: VitaHead, read: torch.Tensor) -> torch.Tensor:
        return head(VideoQueries(queries=read, mask_embeddings=read, class_logits=classes))[-1].class_logits

    assert torch.equal(classes_of(head_of(keep=0.5), tokens), classes_of(head_of(keep=0.5), other))
    assert not torch.allclose(classes_of(head_of(), tokens), classes_of(head_of(), other), atol=1e-3)
    assert torch.equal(classes_of(head_of(keep=0.5).train(), tokens), classes_of(head_of().train(), tokens))


@pytest.mark.parametrize("pixels", [(2, 4, 6), (9,)])
@torch.no_grad()
def test_mask_logits_are_dot_products_with_the_head_s_own_mask_features(pixels):
    head = head_of()
    embeddings = torch.randn(2, 3, 5, 32)
    features = torch.randn(2, 3, 64, *pixels)
    masks = head.mask_logits(embeddings, features)
    own = head.mask_features(rearrange(features.flatten(3), "b k c p -> (b k) c p 1"))
    assert masks.shape == (2, 3, 5, *pixels)
    assert_close(masks[1, 2].flatten(1), embeddings[1, 2] @ own[5, :, :, 0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("similarity", "without"), [
    ("all", set()), ("frames", {"video_similarity"}), (None, {"video_similarity", "clip_similarity"})])
def test_embeddings_for_the_similarity_loss_exist_as_configured(similarity, without):
    head = head_of(similarity=similarity)
    prediction = head(queries_of(frames_of(1, 3)))[-1]
    assert {name for name in FIELDS if getattr(prediction, name) is None} == without


def test_gradient_reaches_every_parameter():
    head = head_of().train()
    for prediction in head(queries_of(frames_of(2, 5))):
        masks = head.mask_logits(prediction.mask_embeddings, torch.randn(2, 5, 64, 7))
        sum((part * torch.randn_like(part)).sum() for part in (
            masks, prediction.class_logits, prediction.clip_similarity, prediction.video_similarity)).backward(
            retain_graph=True)
    assert [name for name, parameter in head.named_parameters()
            if parameter.grad is None or not parameter.grad.any()] == []


def test_a_segmenter_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="frames of 3 queries"):
        head_of()(queries_of(torch.randn(1, 2, 3, 64)))


@pytest.mark.parametrize(("changes", "complaint"), [
    ({"decoder_layers": 0}, "decoder_layers must be above 0"), ({"window": -1}, "window not negative"),
    ({"keep": 0.0}, "keep=0.0"), ({"heads": 3}, "divisor of dim"), ({"similarity": "clips"}, "'clips' does not exist"),
])
def test_impossible_settings_are_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        head_of(**changes)


@pytest.mark.parametrize("config", [CONFIG, VitaHeadConfig(num_classes=3)])
def test_a_card_rebuilds_the_config_of_its_own_kind(config):
    rebuilt = from_json(CrossClipConfig, to_json(config))
    assert (type(rebuilt), rebuilt) == (type(config), config)
