"""Clips that are aligned by decoder queries, as Tube-Link does for instances, equal the public code.

The reference cuts the video, aligns each clip with the aligned one before it, averages class logits over the clips and
joins masks in time.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.contracts import ClipPrediction
from model.inference import Aligned, NearOnline
from pipeline.clips.sampling import tube_lengths
from tests.fidelity.cases import assert_close_to, case_id, cases, load_case, unhandled
from tests.model.inference.ways import made


class Joined:
    """A merger that returns its input."""

    def __init__(self) -> None:
        self.masks: list[Tensor] = []           # n t h w of each clip

    def add(self, mask_logits: Tensor) -> None:
        self.masks.append(mask_logits)

    def finish(self, class_logits: Tensor) -> tuple[Tensor, Tensor]:
        return class_logits, torch.cat(self.masks, 1)


@pytest.mark.parametrize("path", cases("tubelink_clip_matching"), ids=case_id)
def test_alignment_by_decoder_queries_equals_the_reference(path):
    with load_case(path) as case:
        if case.procedure != "clip_matching_by_queries":
            raise unhandled(case)
        class_logits = case.inputs["class_logits"]          # k n c+1
        masks = case.inputs["mask_logits"]                  # f n h w, clip after clip
        lengths = tube_lengths(len(masks), case.arguments["interval"])
        clips = [
            (ClipPrediction(class_logits=logits[None], mask_logits=clip_masks.transpose(0, 1)[None],
                            queries=queries[None], alignment=queries[None],
                            mask_embeddings=torch.zeros(1, len(queries), 1), pixel_features=torch.empty(0)), frames)
            for logits, queries, clip_masks, frames in zip(class_logits, case.inputs["queries"],
                                                           masks.split(list(lengths)), lengths, strict=True)]
        maker = NearOnline({"tracks": Joined})
        result, joined = made(clips, Aligned([maker]), classes=class_logits.shape[2] - 1)["tracks"]
        assert_close_to(case, "class_logits", result)
        assert_close_to(case, "mask_logits", joined.transpose(0, 1))
        assert not torch.equal(joined.transpose(0, 1), masks)       # the clips were in different orders
