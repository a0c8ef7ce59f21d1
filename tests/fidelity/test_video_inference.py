"""From clip predictions to the panoptic map of a video, near-online and offline, equals the public code."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.contracts import ClipPrediction, Geometry
from model.postprocess.panoptic import PanopticMerger
from model.video_inference import near_online, offline
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled
from tests.fidelity.test_cross_clip_kmax import official_head
from tests.fidelity.test_panoptic_postprocess import embeddings_of_things, official_labels, panoptic_config


def clips_of(case: Case) -> list[tuple[ClipPrediction, int]]:
    """The stored predictions, each with its number of real frames."""
    length, total = case.arguments["clip_frames"], case.arguments["num_frames"]
    clips = []
    for number in range(-(-total // length)):
        stored = {name: case.inputs[f"clip.{number}.{name}"][None]
                  for name in ("pred_logits", "pred_masks", "pred_mask_embeddings", "cluster_centers", "pixel_feature")
                  if f"clip.{number}.{name}" in case.inputs}
        nothing = torch.empty(1, stored["pred_logits"].shape[1], 0)     # near-online cases store no queries
        clips.append((ClipPrediction(
            class_logits=stored["pred_logits"], mask_logits=stored["pred_masks"],
            mask_embeddings=stored["pred_mask_embeddings"], queries=stored.get("cluster_centers", nothing),
            pixel_features=stored.get("pixel_feature", nothing)), min(length, total - number * length)))
    return clips


def geometry_of(case: Case) -> Geometry:
    image, padded = tuple(case.arguments["image_size"]), tuple(case.arguments["input_shape"])
    geometry, output = Geometry.fit(image, padded=padded), tuple(case.arguments["output_size"])
    return geometry if geometry.resized == image else replace(geometry, source=output)


@pytest.mark.parametrize("path", cases("video_inference"), ids=case_id)
def test_the_panoptic_map_of_a_video_equals_the_reference(path):
    with load_case(path) as case:
        a = case.arguments
        if case.procedure != "video_inference" or a["inference_type"] != "video-wise":
            raise unhandled(case)
        classes = len(a["thing_classes"]) + len(a["stuff_classes"])
        merger = PanopticMerger(panoptic_config(a), geometry=geometry_of(case),
                                is_thing=[label in a["thing_classes"] for label in range(classes)])
        clips = clips_of(case)
        if a["stage"] == "within_clip":
            merged = near_online(clips, merger=merger, official_compat=True)
        else:
            arguments = a["cross_clip"]
            assert arguments["num_clip_frames"] == a["clip_frames"]
            merged = offline(clips, official_head(arguments, case.state, num_classes=arguments["num_classes"]),
                             merger=merger)
        assert_close_to(case, "panoptic.0", official_labels(merged.frames, is_thing=merger.is_thing,
                                                            divisor=a["label_divisor"]))
        # the reference keeps the embeddings of the first clip, which the others are aligned to
        for label, embeddings in embeddings_of_things(merged, clips[0][0].mask_embeddings[0]).items():
            assert_close_to(case, f"embedding_of_things.0.{label}", embeddings)
