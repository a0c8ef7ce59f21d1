"""Mask-wise merging equals the public code, on images and on whole videos."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.contracts import Geometry
from model.labels import VOID, class_of, track_of
from model.postprocess.panoptic import PanopticConfig, PanopticMerger
from tests.fidelity.cases import assert_close_to, case_id, cases, load_case, unhandled


def panoptic_config(arguments) -> PanopticConfig:
    """The reference's thresholds under our names."""
    return PanopticConfig(
        thing=arguments["class_threshold_thing"], stuff=arguments["class_threshold_stuff"],
        pixel=arguments["pixel_confidence_threshold"], overlap=arguments["overlap_threshold"],
        class_power=arguments["reorder_class_weight"], mask_power=arguments["reorder_mask_weight"])


def merger_at_output_size(case, *, classes: int, size) -> PanopticMerger:
    """A merger for mask logits that already have the size of the result."""
    size = tuple(size)
    things = set(case.arguments["thing_classes"])
    return PanopticMerger(panoptic_config(case.arguments), is_thing=[c in things for c in range(classes)],
                          geometry=Geometry(source=size, resized=size, padded=size))


def official_labels(frames, *, is_thing, divisor: int) -> torch.Tensor:
    """Our panoptic ids -> class * divisor + number from 0 for things, class for stuff, -1 for void."""
    ids = np.stack(list(frames))
    classes = class_of(ids)
    things = np.asarray(is_thing)[classes] & (ids != VOID)
    return torch.from_numpy(np.where(ids == VOID, -1, np.where(things, classes * divisor + track_of(ids) - 1, classes)))


def embeddings_of_things(merged, embeddings) -> dict[int, torch.Tensor]:
    """Class -> unit embedding of each of its segments, in order of acceptance. embeddings: n d."""
    queries: dict[int, list[int]] = {}
    for identity, segment in merged.segments.items():
        if segment.track:
            queries.setdefault(segment.class_index, []).append(merged.queries[identity])
    return {label: F.normalize(embeddings[query], dim=-1) for label, query in queries.items()}


@pytest.mark.parametrize("path", cases("panoptic_postprocess"), ids=case_id)
def test_merging_a_video_equals_the_reference(path):
    with load_case(path) as case:
        if case.procedure != "panoptic_mask_inference" or case.arguments["stage"] not in ("within_clip", "cross_clip"):
            raise unhandled(case)
        classes = len(case.arguments["thing_classes"]) + len(case.arguments["stuff_classes"])
        merger = merger_at_output_size(case, classes=classes, size=case.inputs["mask_pred"].shape[-2:])
        for frame in case.inputs["mask_pred"].split(1, dim=1):
            merger.add(frame)
        merged = merger.finish(case.inputs["mask_cls"])
        assert_close_to(case, "panoptic", official_labels(merged.frames, is_thing=merger.is_thing,
                                                          divisor=case.arguments["label_divisor"]))
        found = embeddings_of_things(merged, case.inputs["mask_embedding"])
        for label, embeddings in found.items():
            assert_close_to(case, f"embedding_of_things.{label}", embeddings)


@pytest.mark.parametrize("path", [p for p in cases("kmax_image") if load_case(p).procedure == "kmax_image_panoptic"],
                         ids=case_id)
def test_merging_an_image_equals_the_reference(path):
    with load_case(path) as case:
        masks = case.inputs["mask_pred"]
        classes = case.inputs["mask_cls"].shape[-1] - 1
        merger = merger_at_output_size(case, classes=classes, size=masks.shape[-2:])
        merger.add(masks[:, None])
        merged = merger.finish(case.inputs["mask_cls"])
        number = {identity: position for position, identity in enumerate(merged.segments, start=1)} | {VOID: 0}
        assert_close_to(case, "panoptic", torch.from_numpy(np.vectorize(number.get)(merged.frames[0])))
        segments = list(merged.segments.values())
        assert_close_to(case, "segment_id", torch.arange(1, len(segments) + 1))
        assert_close_to(case, "segment_class", torch.tensor([s.class_index for s in segments]))
        assert_close_to(case, "segment_isthing", torch.tensor([int(s.track > 0) for s in segments]))
