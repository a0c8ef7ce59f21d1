"""Laws of MaXTron's cross-clip head."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from model.contracts import VideoQueries
from model.cross_clip.maxtron import MaXTronHead, MaXTronHeadConfig
from model.query_decoders.kmax import KMaxDecoder, KMaxDecoderConfig

CONFIG = MaXTronHeadConfig(num_classes=3, dim=16, embedding=8, heads=4, layers=2)
VARIANTS = [CONFIG, replace(CONFIG, start="official"), replace(CONFIG, attention="self"), replace(CONFIG, aspp=False),
            replace(CONFIG, aspp_norm="bn", aspp_rates=(1, 3, 5))]


def stirred(module: nn.Module) -> nn.Module:
    """Move every weight and statistic from its start, so that a missing branch shows."""
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point() and not name.endswith("prior"):
                tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else
                             tensor + 0.2 * torch.randn_like(tensor))
    return module


def videos(batch=2, clips=3, queries=5, dim=16) -> VideoQueries:
    return VideoQueries(queries=torch.randn(batch, clips, queries, dim),
                        mask_embeddings=torch.randn(batch, clips, queries, 8),
                        class_logits=torch.randn(batch, clips, queries, 4))


def part(queries: VideoQueries, take) -> VideoQueries:
    return VideoQueries(queries=take(queries.queries), mask_embeddings=take(queries.mask_embeddings),
                        class_logits=take(queries.class_logits))


def assert_same(prediction, other) -> None:
    for name in ("class_logits", "mask_embeddings", "queries"):
        assert_close(getattr(prediction, name), getattr(other, name), atol=1e-5, rtol=1e-4)


# in training the batch norm of the last variant mixes its batch, as it should
@pytest.mark.parametrize(("config", "training"), [(config, False) for config in VARIANTS]
                         + [(config, True) for config in VARIANTS[:-1]])
def test_a_batch_of_two_videos_equals_two_of_one(config, training):
    head = stirred(MaXTronHead(config)).train(training)
    both = videos()
    pixels = torch.randn(2, 3, 8, 2, 4, 6)
    together = head(both)[-1]
    masks = head.mask_logits(together.mask_embeddings, pixels)
    for index in range(2):
        alone = head(part(both, lambda x, i=index: x[i:i + 1]))[-1]
        assert_same(alone, type(together)(class_logits=together.class_logits[index:index + 1],
                                          mask_embeddings=together.mask_embeddings[index:index + 1],
                                          queries=together.queries[index:index + 1]))
        assert_close(head.mask_logits(alone.mask_embeddings, pixels[index:index + 1]), masks[index:index + 1])


@pytest.mark.parametrize("config", VARIANTS)
def test_permuting_the_queries_of_a_video_permutes_the_result(config):
    head = stirred(MaXTronHead(config)).eval()
    queries = videos(batch=1)
    order = torch.randperm(5)
    straight = head(queries)[-1]
    permuted = head(part(queries, lambda x: x[:, :, order]))[-1]
    assert_close(permuted.class_logits, straight.class_logits[:, order], atol=1e-5, rtol=1e-4)
    assert_close(permuted.mask_embeddings, straight.mask_embeddings[:, :, order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", VARIANTS)
@pytest.mark.parametrize("clips", [1, 7])
def test_any_number_of_clips_gives_one_prediction_per_layer(config, clips):
    predictions = config.build().eval()(videos(clips=clips))
    assert len(predictions) == config.layers
    assert predictions[-1].class_logits.shape == (2, 5, 4)
    assert predictions[-1].mask_embeddings.shape == (2, clips, 5, 8)


@pytest.mark.parametrize("pixels", [(2, 4, 6), (9,)])
def test_mask_logits_take_whole_frames_or_a_sample_of_pixels(pixels):
    head = stirred(MaXTronHead(CONFIG)).eval()
    embeddings = torch.randn(2, 3, 5, 8)
    features = torch.randn(2, 3, 8, *pixels)
    masks = head.mask_logits(embeddings, features)
    assert masks.shape == (2, 3, 5, *pixels)
    assert_close(head.mask_logits(embeddings[:, 1:2], features[:, 1:2]), masks[:, 1:2])


@pytest.fixture
def segmenter() -> KMaxDecoder:
    config = KMaxDecoderConfig(layers=(0, 0, 1), num_queries=5, dim=16, embedding=8, ffn=32, heads=4)
    return stirred(KMaxDecoder(config, channels=(8, 8, 8, 8), num_classes=3)).eval()


def clips_of(segmenter, clips=3):
    """Clip predictions of one video."""
    sides = ((8, 12), (4, 6), (2, 3), (1, 2))
    return [segmenter([torch.randn(2, 8, *side) for side in sides], frames=2) for _ in range(clips)]


def test_the_near_online_start_is_the_near_online_result(segmenter):
    head = MaXTronHead(CONFIG).eval()
    head.initialise_from({f"query_decoder.{name}": tensor for name, tensor in segmenter.state_dict().items()})
    clips = clips_of(segmenter)
    queries = VideoQueries(queries=torch.stack([c.queries for c in clips], 1),
                           mask_embeddings=torch.stack([c.mask_embeddings for c in clips], 1),
                           class_logits=torch.stack([c.class_logits for c in clips], 1))
    for prediction in head(queries):
        assert_close(prediction.class_logits, queries.class_logits.mean(1), atol=1e-6, rtol=1e-5)
        masks = head.mask_logits(prediction.mask_embeddings, torch.stack([c.pixel_features for c in clips], 1))
        for clip, mask_logits in zip(clips, masks.unbind(1)):
            assert_close(mask_logits, clip.mask_logits, atol=1e-6, rtol=1e-5)


def test_every_new_branch_receives_a_gradient_from_the_near_online_start():
    head = MaXTronHead(CONFIG).train()
    for _ in range(2):      # the first step opens the branches, the second reaches inside them
        head.zero_grad()
        prediction = head(videos())[-1]
        (prediction.class_logits.square().sum() + prediction.mask_embeddings.square().sum()).backward()
        with torch.no_grad():
            for parameter in head.parameters():
                if parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad
    # biases are left out, because a softmax does not change when all its scores move alike
    assert [name for name, parameter in head.named_parameters() if not name.endswith("bias") and "mask_norm" not in name
            and (parameter.grad is None or not parameter.grad.any())] == []


def test_copied_norms_keep_their_statistics_unless_trained(segmenter):
    for train_norms in (False, True):
        head = MaXTronHead(replace(CONFIG, train_norms=train_norms))
        head.initialise_from(segmenter.state_dict())
        head.train()
        head(videos())
        kept = torch.equal(head.predictor.class_projection.norm.running_mean,
                           segmenter.class_projection.norm.running_mean)
        assert kept != train_norms


def test_a_segmenter_without_the_heads_or_with_other_classes_is_refused(segmenter):
    with pytest.raises(ValueError, match="Video-kMaX"):
        MaXTronHead(CONFIG).initialise_from({"backbone.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="shape"):
        MaXTronHead(replace(CONFIG, num_classes=5)).initialise_from(segmenter.state_dict())


@pytest.mark.parametrize(("field", "value", "cure"), [
    ("heads", 3, "divisor"), ("layers", 0, "positive"), ("aspp_kernels", (3, 3), "equally long"),
    ("aspp_rates", (1, 2), "equally long"), ("void_prior", 1.0, "between 0 and 1"), ("start", "zero", "choose one of"),
])
def test_an_impossible_config_is_refused_with_the_cure(field, value, cure):
    with pytest.raises(ValueError, match=cure):
        replace(CONFIG, **{field: value})


def test_officially_all_videos_of_a_batch_get_the_same_classes():
    """The public code weighs the clips of a batch in one softmax, so both agree for one video only."""
    ours, theirs = (stirred(MaXTronHead(replace(CONFIG, official_compat=compat))).eval() for compat in (False, True))
    theirs.load_state_dict(ours.state_dict())
    both = videos(batch=2)
    one = videos(batch=1)
    assert_same(theirs(one)[-1], ours(one)[-1])
    together = theirs(both)[-1]
    right = ours(both)[-1]
    assert_close(together.class_logits[0], together.class_logits[1])
    assert not torch.allclose(right.class_logits[0], right.class_logits[1])
    assert_close(together.mask_embeddings, right.mask_embeddings)


@pytest.mark.parametrize("config", VARIANTS[:3])
@torch.no_grad()
def test_the_attention_to_clips_is_that_of_the_last_layer_and_changes_no_result(config):
    head = stirred(MaXTronHead(config)).eval()
    queries = videos(batch=2, clips=3, queries=5)
    maps: dict[str, torch.Tensor] = {}
    watched = head(queries, attention=maps)
    assert_same(watched[-1], head(queries)[-1])
    assert maps["time"].shape == (2, config.heads, 3 * 5, 3)
    assert_close(maps["time"].sum(-1), torch.ones(2, config.heads, 15))
    assert maps["time"].std() > 1e-4
