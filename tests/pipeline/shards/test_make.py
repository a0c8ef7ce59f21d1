"""Making shards: the same bytes after any interruption, no half-written files, and counts of bad videos."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import BadInput
from pipeline.files import sha256_of
from pipeline.images import encode_jpeg
from pipeline.shards import ShardConfig, ShardSet, make_shards, plan_shards, verify
from pipeline.shards import writer as writing
from tests.pipeline.shards.toy_videos import SEGMENTS, ToyVideos, toy_videos, without
from tests.storm.small_disk import disk_of

CONFIG = ShardConfig(clip_frames=4, min_shards=3)
LENGTHS = {"a": 6, "B.mov": 1, "c d": 4, "e": 9}


@pytest.fixture
def data(tmp_path) -> ToyVideos:
    return toy_videos(tmp_path / "toy", LENGTHS)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


def test_two_runs_give_the_same_bytes(data, tmp_path):
    first = make_shards(data, tmp_path / "one", CONFIG, split="train")
    second = make_shards(data, tmp_path / "two", CONFIG, split="train")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert first.fingerprint == second.fingerprint == sha256_of(tmp_path / "one" / "manifest.json")
    assert (first.shards, first.videos, first.frames, first.clips) == (3, 4, 20, 7)
    assert verify(tmp_path / "one") == []


def test_a_finished_shard_is_not_written_again(data, tmp_path, monkeypatch):
    make_shards(data, tmp_path / "out", CONFIG, split="train")
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "train-000001.json").unlink()
    written = []
    monkeypatch.setattr(writing, "_write_tar", lambda data, path, *rest, write=writing._write_tar, **named:
                        written.append(path.name) or write(data, path, *rest, **named))
    make_shards(data, tmp_path / "out", CONFIG, split="train")
    assert written == ["train-000001.tar"]
    assert contents(tmp_path / "out") == before


def test_memory_holds_one_video_at_a_time(tmp_path, monkeypatch):
    data = toy_videos(tmp_path / "toy", LENGTHS, segments=SEGMENTS[:2])     # small ids need a small lookup table

    def large_video(dataset, video_id, config, *, schema, encode=writing.encode_video):
        video = encode(dataset, video_id, config, schema=schema)
        first = video.clips[0]
        return replace(video, clips=[replace(first, members=(("f000.jpg", os.urandom(4_000_000)), *first.members[1:]))])

    monkeypatch.setattr(writing, "encode_video", large_video)
    plan = plan_shards(data, ShardConfig(), split="train")
    tracemalloc.start()
    writing.make_shard(data, tmp_path, plan, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6_000_000


def test_a_damaged_sidecar_affects_only_its_shard(data, tmp_path):
    make_shards(data, tmp_path / "out", CONFIG, split="train")
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "train-000002.json").write_bytes(b"{")
    make_shards(data, tmp_path / "out", CONFIG, split="train")
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_shard_is_written_again(data, tmp_path, damage):
    make_shards(data, tmp_path / "out", CONFIG, split="train")
    before = contents(tmp_path / "out")
    path = tmp_path / "out" / "train-000001.tar"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content[:-512] if damage == "cut" else content)
    make_shards(data, tmp_path / "out", CONFIG, split="train")
    assert contents(tmp_path / "out") == before


def test_a_tar_records_neither_time_nor_owner(data, tmp_path):
    make_shards(data, tmp_path / "out", CONFIG, split="train")
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as tar:
        assert {(info.mtime, info.uid, info.gid, info.uname, info.gname) for info in tar} == {(0, 0, 0, "", "")}


def test_a_bad_video_is_skipped_completely_and_no_other_with_it(data, tmp_path):
    data.image("a", 5).write_bytes(encode_jpeg(np.zeros((9, 9, 3), np.uint8)))
    report = make_shards(data, tmp_path / "out", CONFIG, split="train")
    assert report.skipped == {"size-differs": 1}
    shards = ShardSet(tmp_path / "out")
    assert [video.video_id for video in shards.videos] == ["B.mov", "c d", "e"]
    [error] = map(json.loads, (tmp_path / "out" / "errors.jsonl").read_text().splitlines())
    assert (error["video"], error["reason"]) == ("a", "size-differs")
    assert str(data.image("a", 5)) in error["message"]
    assert shards.manifest["totals"]["skipped"] == report.skipped
    assert verify(tmp_path / "out") == []


@pytest.mark.parametrize(("damaged", "skipped"), [(b"\xff\xd8", 0), (encode_jpeg(np.zeros((9, 9, 3), np.uint8)), 1)])
def test_a_repaired_picture_is_added_by_the_next_run(data, tmp_path, damaged, skipped):
    content = data.image("a", 5).read_bytes()
    data.image("a", 5).write_bytes(damaged)
    report = make_shards(data, tmp_path / "out", CONFIG, split="train")
    assert (sum(report.skipped.values()), len(report.faults)) == (skipped, 1 - skipped)
    data.image("a", 5).write_bytes(content)
    make_shards(data, tmp_path / "out", CONFIG, split="train")
    make_shards(data, tmp_path / "never_bad", CONFIG, split="train")
    assert contents(tmp_path / "out") == contents(tmp_path / "never_bad")


def test_videos_that_were_missing_in_the_first_run_join_its_shards(data, tmp_path):
    """With them the same settings would give more shards, but finished shards are kept all the same."""
    size = sum(path.stat().st_size for path in data.root.rglob("*.*")) / 1e6
    config = ShardConfig(clip_frames=4, shard_megabytes=size / 2)
    whole = plan_shards(data, config, split="train")
    gone = tmp_path / "gone"
    data.image("e", 0).parent.rename(gone)
    first = make_shards(data, tmp_path / "out", config, split="train")
    assert first.skipped == {"missing-image": 1}
    assert first.shards < len(whole.shards)
    gone.rename(data.image("e", 0).parent)
    second = make_shards(data, tmp_path / "out", config, split="train")
    assert (second.shards, second.videos, second.skipped) == (first.shards, 4, {})
    assert verify(tmp_path / "out") == []


def test_a_damaged_plan_is_named_and_made_again(data, tmp_path):
    make_shards(data, tmp_path / "out", CONFIG, split="train")
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "plan.json").write_bytes(b"{")
    with pytest.raises(BadInput, match=r"plan\.json: it cannot be read .*finished shards are kept"):
        make_shards(data, tmp_path / "out", CONFIG, split="train")
    (tmp_path / "out" / "plan.json").unlink()
    make_shards(data, tmp_path / "out", CONFIG, split="train")
    assert contents(tmp_path / "out") == before


def test_strict_stops_at_the_first_bad_video(data, tmp_path):
    data.image("c d", 0).unlink()
    with pytest.raises(BadInput, match="c d"):
        make_shards(data, tmp_path / "out", CONFIG, split="train", strict=True)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not list((tmp_path / "out").glob("*.partial"))


def test_too_many_bad_videos_fail_at_the_end_and_leave_no_manifest(data, tmp_path):
    for video in ("a", "B.mov", "e"):
        data.image(video, 0).write_bytes(encode_jpeg(np.zeros((9, 9, 3), np.uint8)))
    with pytest.raises(ValueError, match=r"3 of 4 videos are bad.*errors.jsonl"):
        make_shards(data, tmp_path / "out", CONFIG, split="train")
    assert len((tmp_path / "out" / "errors.jsonl").read_text().splitlines()) == 3
    with pytest.raises(FileNotFoundError, match="not finished"):
        ShardSet(tmp_path / "out")


@pytest.mark.parametrize("strict", [True, False])
def test_a_failed_start_does_not_refuse_the_corrected_one(data, tmp_path, strict):
    """The corrected data have fewer videos, and another setting: a second plan."""
    bad = ("a", "B.mov", "e")
    good = {video: data.image(video, 0).read_bytes() for video in bad}
    for video in bad:
        data.image(video, 0).write_bytes(encode_jpeg(np.zeros((9, 9, 3), np.uint8)))
    with pytest.raises(BadInput):
        make_shards(data, tmp_path / "out", CONFIG, split="train", strict=strict)
    for video, image in good.items():
        data.image(video, 0).write_bytes(image)
    other = replace(CONFIG, max_bad_fraction=1.0, min_shards=2)
    make_shards(without(data, "e"), tmp_path / "out", other, split="train")
    assert [video.video_id for video in ShardSet(tmp_path / "out").videos] == ["B.mov", "a", "c d"]
    assert verify(tmp_path / "out") == []


def test_a_failed_start_of_a_finished_set_keeps_its_plan(data, tmp_path):
    make_shards(data, tmp_path / "out", CONFIG, split="train")
    damaged = data.image("a", 0)
    damaged.write_bytes(b"no jpeg")
    with pytest.raises(ValueError, match="another plan"):
        make_shards(data, tmp_path / "out", ShardConfig(), split="train", strict=True)
    assert make_shards(data, tmp_path / "out", CONFIG, split="train", strict=True).videos == 4


def test_shards_of_two_plans_are_not_mixed(data, tmp_path):
    make_shards(data, tmp_path / "out", CONFIG, split="train")
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match=r"clip_frames: 4 there, 8 now.*another folder"):
        make_shards(data, tmp_path / "out", ShardConfig(min_shards=3), split="train")
    with pytest.raises(ValueError, match="another plan, which differs in shards"):
        make_shards(without(data, "a"), tmp_path / "out", CONFIG, split="train")
    assert contents(tmp_path / "out") == before


CHILD = """
import os, sys
from pathlib import Path
from pipeline.shards import ShardConfig, make_shards
from tests.pipeline.shards.toy_videos import ToyVideos

class Dying(ToyVideos):
    def frame_ids(self, video, frame):
        if video.video_id == "c d":
            os._exit(9)
        return super().frame_ids(video, frame)

toy, out, lengths = Path(sys.argv[1]), Path(sys.argv[2]), {"a": 6, "B.mov": 1, "c d": 4, "e": 9}
"""


def run_child(code: str, data: ToyVideos, folder: Path) -> subprocess.CompletedProcess:
    root = Path(__file__).parents[3]
    return subprocess.run([sys.executable, "-c", CHILD + code, data.root, folder], cwd=root, capture_output=True,
                          text=True, env=os.environ | {"PYTHONPATH": str(root)})


def test_a_killed_run_leaves_only_a_partial_file_and_the_next_run_completes_it(data, tmp_path):
    config = ShardConfig(clip_frames=4, min_shards=2)
    killed = run_child("make_shards(Dying(toy, lengths), out, ShardConfig(clip_frames=4, min_shards=2), split='train')",
                       data, tmp_path / "out")
    assert killed.returncode == 9, killed.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {name for name in names if not name.endswith(".partial")} == {"plan.json", "train-000000.tar",
                                                                         "train-000000.json"}
    assert any(name.endswith(".partial") for name in names)
    make_shards(data, tmp_path / "out", config, split="train")
    make_shards(data, tmp_path / "undisturbed", config, split="train")
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_a_full_disk_is_named_and_leaves_no_half_written_file(data, tmp_path):
    with disk_of(20_000), pytest.raises(OSError, match=r"cannot write shard .*finished shards are kept"):
        make_shards(data, tmp_path / "out", ShardConfig(clip_frames=4), split="train")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plan.json"]
