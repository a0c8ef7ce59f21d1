"""Frames without a label are void in training and in the cache, and not scored; a video without any is left out."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from jobs.evaluate import scored_part
from model.contracts import PanopticVideo, Track, Tracks, VideoQueries, VideoResults, VideoSegment
from model.inference.resize import FixedCanvas
from model.labels import panoptic_id
from pipeline.clips import AugmentConfig, StoredVideoSource, video_clips
from pipeline.metrics.scorecard import Scorecard, headline
from pipeline.query_cache import EvidenceConfig, EvidenceRecorder
from pipeline.shards import ShardConfig, ShardSet, make_shards, verify
from pipeline.training_input import InputConfig, at_stride_4, training_batches
from tests.faults import error_of
from tests.own_data.worlds import SOURCES, Source, edit

LABELS = {"vipseg": "panomasksRGB", "vipseg categories": "panomasks", "vspw categories": "data/*/mask",
          "kitti_step categories": "panoptic_maps/*"}
FRAMES = 6


def labels_of(root: Path, name: str, video: str) -> list[Path]:
    """The label files of one video, in the order of time."""
    pattern = LABELS[name].replace("*", video) if name.startswith("vspw") else f"{LABELS[name]}/{video}"
    return sorted(path for folder in root.glob(pattern) for path in folder.glob("*.png"))


def forget(root: Path, name: str, video: str, keep: range) -> list[str]:
    """Delete the labels of all frames but `keep`, in the json too; returns the names of all frames."""
    files = labels_of(root, name, video)
    for path in [path for index, path in enumerate(files) if index not in keep]:
        path.unlink()
    if name == "vipseg":
        def change(content: dict) -> None:
            (entry,) = [entry for entry in content["annotations"] if entry["video_id"] == video]
            entry["annotations"] = [row for index, row in enumerate(entry["annotations"]) if index in keep]
        edit(root / SOURCES[name].json, change)
    return [path.stem for path in files]


@pytest.fixture(params=LABELS)
def sparse(request, tmp_path) -> tuple[Source, Path, str]:
    """A world in which every third frame of the first video and no frame of the second is labelled."""
    name = request.param
    root = SOURCES[name].write(tmp_path / "world", frames=FRAMES, videos_train=3)
    forget(root, name, "train_00000", range(0, FRAMES, 3))
    forget(root, name, "train_00001", range(0))
    return SOURCES[name], root, name


def shards_of(source: Source, root: Path, tmp_path: Path) -> ShardSet:
    report = make_shards(source.open(root), tmp_path / "shards", ShardConfig(clip_frames=4), split="train")
    assert (report.videos, report.skipped) == (3, {})
    assert report.remarks == {"frames without a label": 4, "videos without a label": 1}
    assert verify(tmp_path / "shards") == []
    return ShardSet(tmp_path / "shards")


def test_every_reader_keeps_the_frames_and_only_the_labels_that_are_there(sparse, tmp_path):
    source, root, _ = sparse
    shards = shards_of(source, root, tmp_path)
    first, second, third = shards.videos
    assert [len(video.frames) for video in shards.videos] == [FRAMES] * 3
    assert [frame.index for frame in first.frames if frame.label] == [0, 3]
    assert (second.has_labels, second.segments) == (False, ())
    assert all(frame.label for frame in third.frames)
    assert [shards.ids(first, frame).any() for frame in range(FRAMES)] == [True, False, False, True, False, False]
    assert [bool(masks) for masks in ([png for _, png in shards.read(first, 0, FRAMES, check=True)])] == [
        True, False, False, True, False, False]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_training_clip_shows_neighbours_and_those_without_a_label_are_void(sparse, tmp_path, streaming):
    source, root, _ = sparse
    shards = shards_of(source, root, tmp_path)
    still = AugmentConfig(size=(48, 64), scale=(1, 1), flip=0, crop=False, color=False, reverse=0)
    config = InputConfig(batch_size=1, workers=0, copy_paste=None, augment=still, streaming=streaming)
    stored = next(video for video in shards.videos if video.video_id == "train_00000")
    frames = [frame.transpose(2, 0, 1) for frame in StoredVideoSource(shards, stored).frames(0, FRAMES)]
    clips = {(start, start + 1): [frame % 3 != 0 for frame in (start, start + 1)] for start in (0, 2, 3)}
    seen = set()
    for batch in islice(training_batches(shards, config), 40):
        (video,) = batch.videos
        (target,) = batch.targets
        seen.add(video)
        if video == "train_00000":
            (clip,) = [clip for clip in clips if all(map(np.array_equal, batch.frames[0].numpy(),
                                                         (frames[frame] for frame in clip)))]
            seen.add(clip)
            assert target.unlabelled.tolist() == clips[clip]
            assert target.masks.any(0).flatten(1).any(1).tolist() == [not void for void in clips[clip]]
        else:
            assert target.unlabelled is None
    assert seen == {"train_00000", "train_00002", *clips}


def test_a_set_without_any_label_is_refused_in_plain_words(tmp_path):
    source = SOURCES["vipseg categories"]
    root = source.write(tmp_path / "world")
    shutil.rmtree(root / "panomasks" / "train_00000")
    shutil.rmtree(root / "panomasks" / "train_00001")
    make_shards(source.open(root), tmp_path / "shards", split="train")
    with pytest.raises(ValueError, match=r"none of the 2 videos .* has labels"):
        ShardSet(tmp_path / "shards").with_labels()


def test_the_pixels_of_unlabelled_frames_have_no_weight_in_the_cache(sparse, tmp_path):
    import torch

    source, root, _ = sparse
    shards = shards_of(source, root, tmp_path)
    video = shards.videos[0]
    recorder = EvidenceRecorder(video, shards.classes, view=0, config=EvidenceConfig(pixels=40), seed=0)
    clips = list(video_clips(StoredVideoSource(shards, video), 2, FixedCanvas(size=(48, 64))))
    for clip in clips:
        recorder.add(at_stride_4(clip.ids), torch.zeros(3, 2, 12, 16), start=clip.indices[0], valid=clip.valid)
    nothing = torch.zeros(1, len(clips), 3, 4)
    for start, row in zip((0, 2, 4), recorder.clips(VideoQueries(queries=nothing, mask_embeddings=nothing,
                                                                class_logits=nothing)), strict=True):
        frames = start + row.pixel_positions[:, 0]
        assert ((row.pixel_weights > 0) == np.isin(frames, [0, 3])).all()
        assert (row.pixel_tubes[frames % 3 != 0] == -1).all()


def test_a_label_that_the_json_lists_must_be_there_and_one_that_it_does_not_list_must_not(tmp_path):
    root = SOURCES["vipseg"].write(tmp_path / "world")
    file = labels_of(root, "vipseg", "train_00000")[1]
    content = file.read_bytes()
    file.unlink()
    error = error_of(lambda: SOURCES["vipseg"].open(root).read("train_00000"))
    assert error.what == "the frame has no label."
    forget(root, "vipseg", "train_00001", range(1))
    labels_of(root, "vipseg", "train_00001")[0].with_name("00000099.png").write_bytes(content)
    error = error_of(lambda: SOURCES["vipseg"].open(root).read("train_00001"))
    assert error.what == "the frame '00000099' has a label map, which the json does not annotate."


def test_what_is_predicted_in_unlabelled_frames_counts_neither_for_nor_against(tmp_path):
    """The truth in labelled frames and nonsense in the others scores 100 in every metric."""
    source = SOURCES["vipseg"]
    root = source.write(tmp_path / "world", frames=FRAMES)
    forget(root, "vipseg", "train_00000", range(0, FRAMES, 3))
    make_shards(source.open(root), tmp_path / "shards", split="train")
    shards = ShardSet(tmp_path / "shards")
    video = shards.videos[0]
    truth = VideoResults(panoptic=shards.truth(video), tracks=shards.truth_tracks(video))
    nonsense = int(panoptic_id(0, 0)) if not shards.classes.is_thing[0] else int(panoptic_id(0, 77))
    maps = [ids if frame % 3 == 0 else np.full_like(ids, nonsense) for frame, ids in enumerate(truth.panoptic.frames)]
    segments = {**truth.panoptic.segments,
                nonsense: VideoSegment(class_index=nonsense // 10_000, track=nonsense % 10_000)}
    full = run_lengths.encode(np.ones((48, 64), np.uint8, order="F"))
    tracks = [Track(class_index=track.class_index, score=0.9,
                    masks=tuple(mask if frame % 3 == 0 else full for frame, mask in enumerate(track.masks)))
              for track in truth.tracks.tracks]
    tracks.append(Track(class_index=tracks[0].class_index, score=1.0, masks=(None, full, full, None, full, full)))
    predicted = VideoResults(
        panoptic=PanopticVideo(video_id=video.video_id, frame_names=truth.panoptic.frame_names, frames=maps,
                               segments=segments),
        tracks=Tracks(video_id=video.video_id, frame_names=truth.tracks.frame_names, size=truth.tracks.size,
                      tracks=tuple(tracks)))
    card = Scorecard(shards.classes, ("panoptic", "tracks"), windows=(1, 2, 4, 6))
    card.update(scored_part(predicted, video), truth)
    scores = headline(card.scores())
    assert {name: scores[name] for name in ("vpq", "stq", "miou", "ap")} == pytest.approx(
        {"vpq": 100, "stq": 100, "miou": 100, "ap": 100})


def test_a_still_without_an_annotation_is_kept_without_label(tmp_path):
    source = SOURCES["coco_panoptic"]
    root = source.write(tmp_path / "world")
    edit(root / source.json, lambda content: content["annotations"].pop(0) and None)
    make_shards(source.open(root), tmp_path / "shards", split="train")
    shards = ShardSet(tmp_path / "shards")
    assert [video.has_labels for video in shards.videos] == [False, True]
    assert json.loads((shards.folder / "manifest.json").read_text())["remarks"] == {"videos without a label": 1}
    assert [video.video_id for video in shards.with_labels().videos] == [shards.videos[1].video_id]
