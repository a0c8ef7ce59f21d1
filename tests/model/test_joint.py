"""A frame detector and VITA's head in one module say what they would say one after the other."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from torch.testing import assert_close

from model.contracts import VideoQueries
from model.joint import DetectorWithHead
from tests.model.cross_clip.test_vita import CONFIG as HEAD
from tests.tiny_models import tiny_mask2former


def both(layers: int = 2) -> DetectorWithHead:
    torch.manual_seed(2)
    return DetectorWithHead(tiny_mask2former().build(), HEAD.build(), layers=layers).eval()


def clips_of(b: int, t: int) -> torch.Tensor:
    return torch.randint(0, 256, (b, t, 3, 64, 96), dtype=torch.uint8)


@torch.inference_mode()
def test_the_last_layer_is_what_inference_reads_frame_by_frame():
    model = both()
    clips = clips_of(2, 3)
    together = model(clips)
    for item, clip in enumerate(clips):
        frames = [model.segmenter(frame[None, None]) for frame in clip]
        queries, embeddings, classes = (torch.stack([getattr(frame, name)[0] for frame in frames])[None]
                                        for name in ("queries", "mask_embeddings", "class_logits"))
        video = model.head(VideoQueries(queries=queries, mask_embeddings=embeddings, class_logits=classes))[-1]
        pixels = torch.stack([frame.pixel_features[0, :, 0] for frame in frames])[None]
        masks = model.head.mask_logits(video.mask_embeddings, pixels)
        of_last = 2 + item      # l b: the second detector layer of two that are read
        assert_close(together.videos[-1].class_logits[of_last], video.class_logits[0], atol=1e-3, rtol=1e-3)
        assert_close(together.mask_logits[-1][of_last], rearrange(masks[0], "t n h w -> n t h w"), atol=1e-2, rtol=1e-3)
        assert_close(together.frames.class_logits[3 * item], frames[0].class_logits[0], atol=1e-3, rtol=1e-3)


def test_every_layer_that_is_read_makes_videos_of_its_own():
    prediction = both(layers=3)(clips_of(2, 2), torch.ones(2, 2, 64, 96, dtype=torch.bool))
    assert prediction.frames.class_logits.shape == (4, 16, 7)
    assert len(prediction.videos) == len(prediction.mask_logits) == HEAD.decoder_layers
    for video, masks in zip(prediction.videos, prediction.mask_logits):
        assert video.class_logits.shape == (6, 5, 7)
        assert video.clip_similarity.shape == (6, 2, 16, 64)
        assert masks.shape == (6, 5, 2, 16, 24)
    assert not torch.allclose(prediction.videos[-1].class_logits[0], prediction.videos[-1].class_logits[2], atol=1e-4)


@pytest.mark.parametrize("layers", [0, 4])
def test_layers_the_detector_lacks_are_refused(layers):
    with pytest.raises(ValueError, match=f"cannot read {layers} decoder layers of a detector that has 3"):
        both(layers)
