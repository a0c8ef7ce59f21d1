"""A whole video through our own path, from frame queries to scored tracks, equals the public inference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from model.contracts import Geometry
from model.inference import merge_video
from model.postprocess.instances import TrackConfig, TrackMerger
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled
from tests.fidelity.test_vita_module import head_of, queries_of

PIXELS_OFF = 5e-4       # share of mask pixels that may differ, as the case's own note says


def inference(case: Case) -> None:
    a = case.arguments
    queries = case.inputs["frame_queries"]
    features = case.inputs["mask_features"]
    divisor = a["size_divisibility"]
    padded = tuple(-(-side // divisor) * divisor for side in a["frame_size"])
    geometry = Geometry(source=tuple(a["output_size"]), resized=tuple(a["frame_size"]), padded=padded)
    assert a["chunk"] > 0       # how many frames the reference computes at once; here it is one
    merger = TrackMerger(TrackConfig(candidates=a["topk"], scored="video"), geometry=geometry,
                         is_thing=[True] * a["module"]["num_classes"])
    tracks = merge_video(queries_of(queries[None]), [(frame[:, None], 1) for frame in features], head_of(case),
                         new_mergers={"tracks": lambda: merger})["tracks"]
    tracks = sorted(tracks, key=lambda track: -track.score)
    # a candidate without a mask in any frame scores 0 there, and is no track here
    classes = case.outputs["labels"].where(case.outputs["scores"] == 0, -1)
    classes[:len(tracks)] = torch.tensor([track.class_index for track in tracks])
    scores = torch.zeros(a["topk"])
    scores[:len(tracks)] = torch.tensor([track.score for track in tracks])
    assert_close_to(case, "scores", scores)
    assert_close_to(case, "labels", classes)
    expected = case.outputs["masks"].numpy()
    found = np.zeros(expected.shape, dtype=np.uint8)
    for volume, track in zip(found, tracks):
        for frame, mask in enumerate(track.masks):
            if mask is not None:
                volume[frame] = coco_mask.decode(mask)
    assert (found != expected).mean() <= PIXELS_OFF


PROCEDURES = {"vita_inference": inference}


@pytest.mark.parametrize("path", cases("vita_inference"), ids=case_id)
@torch.no_grad()
def test_scores_classes_and_masks_equal_the_reference(path):
    with load_case(path) as case:
        if case.procedure not in PROCEDURES:
            raise unhandled(case)
        PROCEDURES[case.procedure](case)
