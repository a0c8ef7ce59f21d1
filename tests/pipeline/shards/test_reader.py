"""A shard set returns the content of its data set, from any process, or refuses with a clear message."""

from __future__ import annotations

import json
import os
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import webdataset as wds
from numpy.testing import assert_array_equal
from pycocotools import mask as coco

from model.labels import VOID
from pipeline.errors import BadInput, Mismatch
from pipeline.files import sha256_of
from pipeline.shards import ShardConfig, ShardSet, make_shards, write_index
from tests.pipeline.shards.index_files import as_earlier_version, rows_of
from tests.pipeline.shards.toy_videos import CLASSES, SEGMENTS, Described, ToyVideos, toy_map, toy_videos

LENGTHS = {"a": 10, "B.mov": 1, "c": 5}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> ToyVideos:
    return toy_videos(tmp_path_factory.mktemp("toy"), LENGTHS)


@pytest.fixture
def folder(data, tmp_path):
    make_shards(data, tmp_path / "out", ShardConfig(clip_frames=4, min_shards=2), split="val")
    return tmp_path / "out"


def test_consecutive_frames_need_one_read(data, folder, monkeypatch):
    shards = ShardSet(folder)
    reads = []
    monkeypatch.setattr(os, "pread", lambda *where, pread=os.pread: reads.append(where) or pread(*where))
    for video in shards.videos:
        for start in range(len(video.frames)):
            for stop in range(start + 1, len(video.frames) + 1):
                reads.clear()
                pairs = shards.read(video, start, stop, check=True)
                assert len(reads) == 1
                assert [image for image, _ in pairs] == [data.image(video.video_id, frame).read_bytes()
                                                         for frame in range(start, stop)]


def test_a_set_lists_its_content(data, folder):
    shards = ShardSet(folder)
    assert [video.video_id for video in shards.videos] == sorted(LENGTHS)
    assert [video.index for video in shards.videos] == [0, 1, 2]
    assert shards.classes == CLASSES
    assert shards.split == "val"
    assert shards.fingerprint == sha256_of(folder / "manifest.json")
    for video in shards.videos:
        assert [frame.name for frame in video.frames] == [frame.name for frame in data.read(video.video_id).frames]
        assert video.source_ids == tuple(segment.id for segment in SEGMENTS)
        assert [segment.is_crowd for segment in video.segments] == [segment.is_crowd for segment in SEGMENTS]


def test_ids_are_the_data_sets_own_renumbered(folder):
    shards = ShardSet(folder)
    for video in shards.videos:
        source = np.array([0, *video.source_ids])
        for frame in range(len(video.frames)):
            assert_array_equal(source[shards.ids(video, frame)], toy_map(video.video_id, frame, 24, 40))


def test_truth_numbers_things_per_class_and_merges_stuff(folder):
    shards = ShardSet(folder)
    truth = shards.truth(shards.videos[1])
    panoptic = {0: VOID, 7: 0, 300: 10_001, 70_000: 10_002, 70_001: 30_001, 16_000_000: 0}
    assert set(truth.segments) == set(panoptic.values()) - {VOID}
    assert {id: (s.class_index, s.track, s.is_crowd) for id, s in truth.segments.items()} == {
        0: (0, 0, False), 10_001: (1, 1, False), 10_002: (1, 2, False), 30_001: (3, 1, True)}
    for _ in range(2):      # every iteration decodes again
        frames = list(truth.frames)
        assert len(frames) == len(truth.frame_names) == 10
        for frame, ids in enumerate(frames):
            assert ids.dtype == np.int32
            assert_array_equal(ids, np.vectorize(panoptic.get)(toy_map("a", frame, 24, 40)))


def test_truth_keeps_the_order_of_segments_of_the_data_set(tmp_path):
    """The official STQ of VIPSeg depends on the segment that comes first."""
    listed = tuple(SEGMENTS[i] for i in (2, 4, 3, 1, 0))
    data = toy_videos(tmp_path / "toy", {"a": 2}, segments=listed)
    make_shards(data, tmp_path / "out", split="val")
    shards = ShardSet(tmp_path / "out")
    [video] = shards.videos
    assert video.source_ids == tuple(segment.id for segment in listed)
    assert list(shards.truth(video).segments) == [10_001, 0, 30_001, 10_002]
    assert_array_equal(np.array([0, *video.source_ids])[shards.ids(video, 1)], toy_map("a", 1, 24, 40, listed))


def test_overlapping_masks_come_back(tmp_path):
    data = toy_videos(tmp_path / "toy", {"a": 6}, masks=True)
    make_shards(data, tmp_path / "out", ShardConfig(clip_frames=4), split="train")
    shards = ShardSet(tmp_path / "out")
    [video] = shards.videos
    assert video.overlaps
    assert shards.read(video, 0, 6)[5][0] == data.image("a", 5).read_bytes()
    for frame in (0, 5, 3):
        masks = shards.masks(video, frame)
        given = data.read("a").frames[frame].masks
        assert sorted(masks) == [1, 2, 3, 4, 5]
        for segment, source in zip(video.segments, video.source_ids):
            assert_array_equal(coco.decode(masks[segment.id]), coco.decode(given[source]))
    for truth in (shards.truth, shards.truth_semantic):
        with pytest.raises(ValueError, match="score its tracks instead"):
            truth(video)


def test_true_tracks_are_the_masks_of_the_data_set(tmp_path):
    data = toy_videos(tmp_path / "toy", {"a": 9}, masks=True)
    video = data.read("a")
    drawn = [dict(frame.masks) for frame in video.frames]
    for frame in (0, 5):
        del drawn[frame][300]       # absent for a while
    frames = tuple(replace(frame, masks=masks) for frame, masks in zip(video.frames, drawn))
    make_shards(Described(data, replace(video, frames=frames)), tmp_path / "out", ShardConfig(clip_frames=4),
                split="val")
    shards = ShardSet(tmp_path / "out")
    truth = shards.truth_tracks(shards.videos[0])
    assert (truth.video_id, truth.size, len(truth.frame_names)) == ("a", (24, 40), 9)
    things = [segment for segment in SEGMENTS if CLASSES.is_thing[segment.class_index]]
    assert [(t.class_index, t.is_crowd, t.score) for t in truth.tracks] == \
        [(t.class_index, t.is_crowd, 1.0) for t in things]
    for track, thing in zip(truth.tracks, things):
        assert [mask is None for mask in track.masks] == [thing.id not in masks for masks in drawn]
        for mask, masks in zip(track.masks, drawn):
            assert mask is None or mask["counts"] == masks[thing.id]["counts"].encode()


def test_true_classes_are_those_of_the_segments(folder):
    shards = ShardSet(folder)
    class_of = {0: VOID, **{segment.id: segment.class_index for segment in SEGMENTS}}
    truth = shards.truth_semantic(shards.videos[2])
    assert len(truth.frame_names) == 5
    for _ in range(2):
        for frame, classes in enumerate(truth.frames):
            assert classes.dtype == np.int32
            assert_array_equal(classes, np.vectorize(class_of.get)(toy_map("c", frame, 24, 40)))


def test_a_video_without_labels_has_no_truth_and_one_without_objects_has(tmp_path):
    data = toy_videos(tmp_path / "toy", {"a": 2}, masks=True)
    video = data.read("a")
    for masks in (None, {}):
        empty = replace(video, segments=(), frames=tuple(replace(frame, masks=masks) for frame in video.frames))
        make_shards(Described(data, empty), tmp_path / str(masks), split="val")
        shards = ShardSet(tmp_path / str(masks))
        assert shards.videos[0].has_labels == (masks is not None)
        if masks is None:
            with pytest.raises(ValueError, match="has no labels"):
                shards.truth_tracks(shards.videos[0])
        else:
            assert shards.truth_tracks(shards.videos[0]).tracks == ()
            assert all((classes == VOID).all() for classes in shards.truth_semantic(shards.videos[0]).frames)


def test_masks_of_an_id_map_are_its_segments(folder):
    shards = ShardSet(folder)
    for id, mask in shards.masks(shards.videos[0], 0).items():
        assert_array_equal(coco.decode(mask), shards.ids(shards.videos[0], 0) == id)


def test_frames_that_do_not_exist_are_refused(folder):
    shards = ShardSet(folder)
    for start, stop in ((0, 11), (3, 3), (-1, 2)):
        with pytest.raises(IndexError, match="which has 10"):
            shards.read(shards.videos[1], start, stop)


def test_a_pickled_set_reads_the_same_and_carries_no_descriptor(folder):
    shards = ShardSet(folder)
    expected = shards.read(shards.videos[1], 2, 5)
    copy = pickle.loads(pickle.dumps(shards))
    assert copy._files == {}
    assert copy.read(copy.videos[1], 2, 5) == expected


def test_a_forked_process_opens_its_own_files(folder):
    shards = ShardSet(folder)
    expected = shards.read(shards.videos[1], 2, 5)
    [parents] = shards._files.values()
    child = os.fork()
    if child == 0:
        os.close(parents)       # reading through the parent's descriptor would fail now
        os._exit(0 if shards.read(shards.videos[1], 2, 5) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert shards.read(shards.videos[1], 2, 5) == expected


def test_a_lost_index_is_rebuilt_from_the_tars(folder):
    before = list(ShardSet(folder).videos)
    index = (folder / "index.arrow").read_bytes()
    (folder / "index.arrow").unlink()
    assert list(ShardSet(folder).videos) == before
    write_index(folder)
    assert (folder / "index.arrow").read_bytes() == index


def test_webdataset_sees_the_same_clips(data, folder):
    tars = sorted(map(str, folder.glob("*.tar")))
    samples = list(wds.WebDataset(tars, shardshuffle=False))
    metas = [json.loads(sample["meta.json"]) for sample in samples]
    assert [(meta["video_id"], meta["clip_index"]) for meta in metas] == [
        ("B.mov", 0), ("a", 0), ("a", 1), ("a", 2), ("c", 0), ("c", 1)]
    for sample, meta in zip(samples, metas):
        for index in range(meta["num_frames"]):
            source = data.image(meta["video_id"], meta["start_frame"] + index)
            assert sample[f"f{index:03d}.jpg"] == source.read_bytes()


def test_a_truncated_tar_is_refused_at_opening(folder):
    path = folder / "val-000001.tar"
    path.write_bytes(path.read_bytes()[:-10240])
    with pytest.raises(ValueError, match=r"val-000001.tar has .* bytes, but the manifest lists"):
        ShardSet(folder)


def test_a_missing_tar_is_refused_at_opening(folder):
    (folder / "val-000000.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"val-000000.tar"):
        ShardSet(folder)


def test_a_set_whose_tars_are_elsewhere_opens_but_cannot_be_read_by_index(folder, tmp_path):
    videos = list(ShardSet(folder).videos)
    for tar in folder.glob("*.tar"):
        tar.rename(tmp_path / tar.name)
    shards = ShardSet(folder, tars_here=False)
    assert list(shards.videos) == videos
    with pytest.raises(FileNotFoundError, match=r"val-000000\.tar is not on this machine.*input\.stream_from.*Copy"):
        shards.read(shards.videos[0], 0, 1)
    (folder / "index.arrow").unlink()
    with pytest.raises(FileNotFoundError, match=r"no index\.arrow in .*copy it from the folder of the tars"):
        ShardSet(folder, tars_here=False)


def test_a_flipped_byte_is_found_when_checking(folder):
    shards = ShardSet(folder)
    video = shards.videos[1]
    path = folder / shards.manifest["shards"][video.shard]["name"]
    content = bytearray(path.read_bytes())
    content[video.frames[3].image[0] + 200] ^= 1
    path.write_bytes(content)
    assert shards.read(video, 0, 3, check=True)
    with pytest.raises(BadInput, match=video.frames[3].name) as caught:
        shards.read(video, 0, 6, check=True)
    assert caught.value.reason == "damaged-shard"


@pytest.mark.parametrize(("name", "value"), [("schema", 1), ("plan", "0" * 64)])
def test_a_set_of_another_schema_or_plan_is_refused(folder, name, value):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {name: value}))
    with pytest.raises(ValueError, match=f"{name} .*{str(value)[:16]}"):
        ShardSet(folder)


def test_an_unfinished_set_is_refused(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"make_shards has not finished"):
        ShardSet(folder)


@pytest.mark.parametrize("name", ["manifest.json", "index.arrow", "val-000001.tar"])
def test_a_truncated_file_is_bad_data_and_named(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    with pytest.raises(BadInput, match=re.escape(str(folder / name))) as error:
        ShardSet(folder)
    assert error.value.reason == "damaged-shard"
    assert error.value.cure


@pytest.fixture
def other(tmp_path):
    """A set of the same videos with other JPEGs, whose files all have the same sizes."""
    data = toy_videos(tmp_path / "other_toy", LENGTHS)
    for path in data.root.rglob("*.jpg"):
        content = bytearray(path.read_bytes())
        content[15] ^= 1        # the density in the header
        path.write_bytes(content)
    make_shards(data, tmp_path / "other", ShardConfig(clip_frames=4, min_shards=2), split="val")
    return tmp_path / "other"


def test_a_tar_of_another_set_costs_its_videos_and_the_log_has_both_digests_and_the_cure(folder, other, caplog):
    listed = json.loads((folder / "manifest.json").read_text())["shards"][0]["sha256"]
    tar = folder / "val-000000.tar"
    tar.write_bytes((other / tar.name).read_bytes())
    shards = ShardSet(folder)
    lost = [video for video in shards.videos if video.shard == 0]
    for video in shards.videos:
        if video in lost:
            with pytest.raises(BadInput, match=re.escape(str(tar)) + r".*jobs\.make_shards again.*or leave") as raised:
                shards.read(video, 0, len(video.frames))
            assert raised.value.reason == "corrupt-image"
            assert raised.value.video == video.video_id
        else:
            assert shards.read(video, 0, len(video.frames))
    (line,) = caplog.messages
    assert line.startswith(f"{tar} has sha256 {sha256_of(tar)[:12]}..., but manifest.json lists {listed[:12]}...")
    with pytest.raises(BadInput, match=f"video '{lost[0].video_id}'"):
        ShardSet(folder).refuse_damage()


def test_a_whole_set_is_not_refused_and_read_for_its_digests_once(folder, monkeypatch):
    read = []
    monkeypatch.setattr("pipeline.shards.reader.known_sha256", lambda path: read.append(path) or sha256_of(path))
    shards = ShardSet(folder)
    shards.refuse_damage()
    for video in shards.videos:
        shards.read(video, 0, 1)
    assert sorted(path.name for path in read) == ["val-000000.tar", "val-000001.tar"]


def test_a_damage_between_the_frames_is_refused_before_training(folder):
    tar = folder / "val-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    with pytest.raises(BadInput, match=rf"{tar.name}: its sha256 .*jobs\.make_shards again"):
        ShardSet(folder).refuse_damage()


def test_an_index_of_other_tars_is_refused(folder, other):
    plans = [json.loads((where / "manifest.json").read_text())["plan"] for where in (folder, other)]
    assert plans[0] == plans[1]
    (folder / "index.arrow").write_bytes((other / "index.arrow").read_bytes())
    with pytest.raises(BadInput, match="belongs to tars"):
        ShardSet(folder)


def test_an_index_of_an_earlier_version_is_read_until_the_shards_are_made_again(folder, other, data):
    before = list(ShardSet(folder).videos)
    plan = json.loads((folder / "manifest.json").read_text())["plan"]
    for facts in (None, {"schema": "2", "plan": plan}):       # the first versions did not name the tars
        earlier = as_earlier_version(folder, facts=facts)
        assert list(ShardSet(folder).videos) == before
        write_index(folder)
    earlier.write_bytes(as_earlier_version(other).read_bytes())
    (folder / "index.arrow").unlink()
    with pytest.raises(BadInput, match=r"index\.parquet.*belongs to tars"):
        ShardSet(folder)
    make_shards(data, folder, ShardConfig(clip_frames=4, min_shards=2), split="val")
    assert not earlier.exists()
    assert list(ShardSet(folder).videos) == before


def test_columns_of_all_videos_are_those_of_the_videos(folder):
    videos = ShardSet(folder).videos
    assert list(videos.ids()) == [video.video_id for video in videos]
    assert videos.shards.tolist() == [video.shard for video in videos]
    assert videos.frames.tolist() == [len(video.frames) for video in videos]
    assert videos.labels.tolist() == [len(video.labelled) for video in videos]
    assert videos.objects.tolist() == [len(video.segments) for video in videos]
    assert videos.sizes == {(video.height, video.width) for video in videos}
    for shard in range(2):
        assert list(videos.of_shard(shard)) == [video for video in videos if video.shard == shard]
        assert videos.rows_of_shard(shard) == [row for row in rows_of(folder) if row["shard"] == shard]
    assert videos[-1] == list(videos)[-1]
    assert videos[1:] == tuple(videos)[1:]


def test_batches_of_an_index_hold_whole_shards_and_their_number_changes_nothing(folder, monkeypatch):
    before = list(ShardSet(folder).videos)
    monkeypatch.setattr("pipeline.shards.index.BATCH_FRAMES", 1)
    write_index(folder)
    videos = ShardSet(folder).videos
    assert len(videos._batches) == 2
    assert list(videos) == before
    assert list(videos.ids()) == [video.video_id for video in before]
    labelled = videos.chosen(videos.frames > 4)
    assert list(labelled) == [video for video in before if len(video.frames) > 4]
    assert list(labelled.ids()) == [video.video_id for video in labelled]


def test_a_pickled_set_is_its_path_and_refuses_another_set_there(folder, other):
    pickled = pickle.dumps(ShardSet(folder))
    assert len(pickled) < 500
    for path in folder.iterdir():
        path.write_bytes((other / path.name).read_bytes())
    with pytest.raises(Mismatch, match=r"were made again\. Run the same command again"):
        pickle.loads(pickled)


def test_a_flipped_bit_in_an_index_never_changes_a_video(folder):
    """Arrow's own structures are read before any checksum; a wrong one must not end the process either."""
    path = folder / "index.arrow"
    whole = path.read_bytes()
    before = list(ShardSet(folder).videos)
    refused = []
    for place in range(0, len(whole), 3):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            assert list(ShardSet(folder).videos) == before
        except BadInput as error:
            refused.append(str(error))
    assert len(refused) > len(whole) // 6
    assert all(str(path) in message and "Delete the index" in message for message in refused)
