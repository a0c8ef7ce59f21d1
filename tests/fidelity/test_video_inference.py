"""From clip predictions to the panoptic map of a video, near-online and offline, equals the public code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import pytest
import torch

from model.association.clip_wise import ClipWiseConfig, ClipWiseLinker
from model.contracts import ClipPrediction, Geometry
from model.inference.linked import merge_clip
from model.postprocess.panoptic import MergedVideo, PanopticMerger
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled
from tests.fidelity.test_cross_clip_kmax import official_head
from tests.fidelity.test_mask_resize import official_geometry
from tests.fidelity.test_panoptic_postprocess import embeddings_of_things, official_labels, panoptic_config
from tests.model.inference.ways import linked, near_online, offline


def clips_of(case: Case) -> list[tuple[ClipPrediction, int]]:
    """The stored predictions, each with its number of real frames."""
    length = case.arguments["clip_frames"]
    total = case.arguments["num_frames"]
    clips = []
    for number in range(-(-total // length)):
        stored = {name: case.inputs[f"clip.{number}.{name}"][None]
                  for name in ("pred_logits", "pred_masks", "pred_mask_embeddings", "cluster_centers", "pixel_feature")
                  if f"clip.{number}.{name}" in case.inputs}
        nothing = torch.empty(1, stored["pred_logits"].shape[1], 0)     # near-online cases store no queries
        clips.append((ClipPrediction(
            class_logits=stored["pred_logits"], mask_logits=stored["pred_masks"],
            mask_embeddings=stored["pred_mask_embeddings"], alignment=stored["pred_mask_embeddings"],
            queries=stored.get("cluster_centers", nothing),
            pixel_features=stored.get("pixel_feature", nothing)), min(length, total - number * length)))
    return clips


def geometry_of(case: Case) -> Geometry:
    """Frames that do not fit are made smaller, and masks come back at the output size."""
    image = tuple(case.arguments["image_size"])
    padded = tuple(case.arguments["input_shape"])
    resized = Geometry.fit(image, padded=padded).resized
    return official_geometry(resized=resized, padded=padded, output=case.arguments["output_size"],
                             fits=resized == image)


def assert_panoptic(case: Case, number: int, merged: MergedVideo, *, is_thing) -> None:
    """The map of result `number`."""
    assert_close_to(case, f"panoptic.{number}", official_labels(merged.frames, is_thing=is_thing,
                                                                divisor=case.arguments["label_divisor"]))


def assert_embeddings(case: Case, number: int, found: Mapping[int, torch.Tensor]) -> None:
    """The embeddings of result `number`, by class of things."""
    for label, embeddings in found.items():
        assert_close_to(case, f"embedding_of_things.{number}.{label}", embeddings)


def check_clip_wise(case: Case, new_merger: Callable[[], PanopticMerger], *, is_thing) -> None:
    """Every clip is merged on its own, repeated frames included. A record with one result holds the linked video."""
    clips = [(clip, case.arguments["clip_frames"]) for clip, _ in clips_of(case)]
    if len(clips) > 1 and "panoptic.1" not in case.outputs:
        linker = ClipWiseLinker(ClipWiseConfig())
        assert_panoptic(case, 0, linked(clips, linker, new_merger=new_merger, is_thing=is_thing), is_thing=is_thing)
        assert_embeddings(case, 0, {label: torch.from_numpy(memory) for label, memory in linker.memory.items()})
        return
    for number, (clip, frames) in enumerate(clips):
        merged = merge_clip(clip, frames, new_merger())
        assert_panoptic(case, number, merged, is_thing=is_thing)
        assert_embeddings(case, number, embeddings_of_things(merged, clip.mask_embeddings[0]))


def check_video_wise(case: Case, new_merger: Callable[[], PanopticMerger], *, is_thing) -> None:
    """Clips are aligned and merged once, near-online or through the cross-clip head."""
    clips = clips_of(case)
    arguments = case.arguments
    if arguments["stage"] == "within_clip":
        merged = near_online(clips, merger=new_merger(), official_compat=True)
    else:
        head = arguments["cross_clip"]
        assert head["num_clip_frames"] == arguments["clip_frames"]
        merged = offline(clips, official_head(head, case.state, num_classes=head["num_classes"]), merger=new_merger())
    assert_panoptic(case, 0, merged, is_thing=is_thing)
    # the reference keeps the embeddings of the first clip, which the others are aligned to
    assert_embeddings(case, 0, embeddings_of_things(merged, clips[0][0].mask_embeddings[0]))


@pytest.mark.parametrize("path", cases("video_inference"), ids=case_id)
def test_the_panoptic_map_of_a_video_equals_the_reference(path):
    with load_case(path) as case:
        a = case.arguments
        is_thing = [label in a["thing_classes"] for label in range(len(a["thing_classes"]) + len(a["stuff_classes"]))]
        new_merger = partial(PanopticMerger, panoptic_config(a), geometry=geometry_of(case), is_thing=is_thing)
        match case.procedure, a["inference_type"], a["stage"]:
            case "video_inference", "clip-wise", "within_clip":
                check_clip_wise(case, new_merger, is_thing=is_thing)
            case "video_inference", _, "cross_clip":    # the head speaks about the whole video, whatever the type
                check_video_wise(case, new_merger, is_thing=is_thing)
            case "video_inference", "video-wise", "within_clip":
                check_video_wise(case, new_merger, is_thing=is_thing)
            case _:
                raise unhandled(case)
