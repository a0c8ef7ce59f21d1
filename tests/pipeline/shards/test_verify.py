"""Verifying finds every kind of fault, and none in a sound set."""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.images import encode_png
from pipeline.shards import ShardConfig, ShardSet, make_shards, verify
from tests.pipeline.shards.toy_videos import toy_videos


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    make_shards(toy_videos(root / "toy", {"a": 6, "b": 5}), root / "out", ShardConfig(clip_frames=4), split="train")
    return root / "out"


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    return shutil.copytree(sound, tmp_path / "out")


def found(folder: Path, *words: str) -> None:
    findings = verify(folder)
    for word in words:
        assert any(word in finding for finding in findings), findings


def rewrite_tar(folder: Path, change) -> None:
    """Write the tar again; `change` maps its list of (name, content) to the new one."""
    path = folder / "train-000000.tar"
    with tarfile.open(path) as tar:
        members = [(info.name, tar.extractfile(info).read()) for info in tar]
    with tarfile.open(path, "w") as tar:
        for name, content in change(members):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_a_sound_set_has_no_findings(folder):
    assert verify(folder) == []


def test_a_flipped_byte_is_found_by_sha256_and_checksum(folder):
    shards = ShardSet(folder)
    content = bytearray((folder / "train-000000.tar").read_bytes())
    content[shards.videos[0].frames[2].image[0] + 300] ^= 1
    (folder / "train-000000.tar").write_bytes(content)
    found(folder, "its sha256 differs", "'a_c0000.f002.jpg' is {")


@pytest.mark.parametrize("bytes_lost", [3_000, 10_240])
def test_a_truncated_tar_is_found(folder, bytes_lost):
    path = folder / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:-bytes_lost])
    found(folder, "the manifest lists")


def test_a_tar_that_ends_inside_a_member_is_named(folder):
    path = folder / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:5_000])
    found(folder, "the shard cannot be read")


def test_a_lost_tar_a_stray_tar_and_a_lost_index_are_found(folder):
    shutil.move(folder / "train-000000.tar", folder / "train-000009.tar")
    (folder / "index.arrow").unlink()
    found(folder, "train-000000.tar: the file is missing", "train-000009.tar: it is not in the manifest",
          "index.arrow: it cannot be read")


def test_members_of_a_clip_that_are_not_adjacent_are_found(folder):
    def apart(members):
        whole = [m for m in members if m[0].startswith("a_c0000")]
        return [*members, *whole]
    rewrite_tar(folder, apart)
    found(folder, "clip 'a_c0000' lies in 2 pieces")


def test_clips_out_of_order_are_found(folder):
    rewrite_tar(folder, lambda members: sorted(members, key=lambda member: member[0].startswith("a_c0000")))
    found(folder, "out of order")


def test_a_lost_clip_is_found(folder):
    rewrite_tar(folder, lambda members: [m for m in members if not m[0].startswith("a_c0000")])
    found(folder, "'a_c0000' is only in the index", "3 clips, but the manifest lists 4", "one before it is missing")


@pytest.mark.parametrize(("content", "words"), [
    (encode_png(np.full((24, 40), 200, np.uint8)), "contains id 200, but the video has ids up to 5"),
    (encode_png(np.zeros((24, 41), np.uint8)), "has shape (24, 41)"),
    (b"no png at all", "not a PNG"),
])
def test_an_impossible_label_is_found(folder, content, words):
    rewrite_tar(folder, lambda members: [(name, content if name == "b_c0001.f000.png" else old)
                                         for name, old in members])
    found(folder, words)


def test_an_overlap_of_unlisted_segments_is_found(folder):
    def broken(members):
        for name, content in members:
            if name == "b_c0001.meta.json":
                meta = json.loads(content)
                content = json.dumps(meta | {"overlaps": [{"id": 6, "segments": [2, 9]}]}).encode()
            yield name, content
    rewrite_tar(folder, broken)
    found(folder, "'b_c0001' has an overlap of [2, 9]")


def test_wrong_totals_are_found(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["totals"]["frames"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    found(folder, "the frames of all shards sum to 11, but its totals list 12")


def test_a_set_without_manifest_is_found(tmp_path):
    found(tmp_path, "manifest.json: cannot be read")


def test_verifying_a_damaged_byte_raises_nothing_and_finds_every_relevant_one(folder):
    """After one byte or the end of a file has changed, there is no exception, and no such tar or plan passes as sound.

    The manifest and the index contain bytes that are never read.
    """
    rng = random.Random(0)
    for name in ("train-000000.tar", "plan.json", "manifest.json", "index.arrow"):
        path = folder / name
        whole = path.read_bytes()
        for place in rng.sample(range(len(whole)), 60):
            for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:]):
                path.write_bytes(damaged)
                assert verify(folder) or name in ("manifest.json", "index.arrow"), (name, place)
        path.write_bytes(whole)
    assert verify(folder) == []


@pytest.mark.parametrize("lost", ["segments", "frame_names"])
def test_a_clip_whose_description_lacks_a_field_is_found(folder, lost):
    def broken(members):
        for name, content in members:
            if name == "b_c0001.meta.json":
                content = json.dumps({key: value for key, value in json.loads(content).items() if key != lost}).encode()
            yield name, content
    rewrite_tar(folder, broken)
    found(folder, f"the shard cannot be read: '{lost}'")


def test_a_manifest_that_contradicts_the_plan_is_found(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"cow"', '"cat"'))
    found(folder, "its field 'categories' differs from that of plan.json")
