"""Verifying finds each thing that can be wrong, and nothing in a sound set."""

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
    """Put changed members into the tar: `change` gets and gives a list of (name, content)."""
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
    found(folder, "another sha256", "'a_c0000.f002.jpg' is {")


@pytest.mark.parametrize("bytes_lost", [3_000, 10_240])
def test_a_cut_tar_is_found(folder, bytes_lost):
    path = folder / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:-bytes_lost])
    found(folder, "the manifest says")


def test_a_tar_cut_inside_a_member_is_named(folder):
    path = folder / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:5_000])
    found(folder, "cannot read shard")


def test_a_lost_tar_a_stray_tar_and_a_lost_index_are_found(folder):
    shutil.move(folder / "train-000000.tar", folder / "train-000009.tar")
    (folder / "index.parquet").unlink()
    found(folder, "train-000000.tar: missing", "train-000009.tar: not in the manifest", "index.parquet: cannot be read")


def test_members_of_a_clip_that_are_not_adjacent_are_found(folder):
    def apart(members):
        whole = [m for m in members if m[0].startswith("a_c0000")]
        return [*members, *whole]
    rewrite_tar(folder, apart)
    found(folder, "clip 'a_c0000' is not in one piece but 2")


def test_clips_out_of_order_are_found(folder):
    rewrite_tar(folder, lambda members: sorted(members, key=lambda member: member[0].startswith("a_c0000")))
    found(folder, "out of order")


def test_a_lost_clip_is_found(folder):
    rewrite_tar(folder, lambda members: [m for m in members if not m[0].startswith("a_c0000")])
    found(folder, "'a_c0000' is only in the index", "3 clips, the manifest says 4", "one before it is missing")


@pytest.mark.parametrize(("content", "words"), [
    (encode_png(np.full((24, 40), 200, np.uint8)), "holds id 200, its video lists 5"),
    (encode_png(np.zeros((24, 41), np.uint8)), "has shape (24, 41)"),
    (b"no png at all", "not a PNG"),
])
def test_a_label_that_cannot_be_is_found(folder, content, words):
    rewrite_tar(folder, lambda members: [(name, content if name == "b_c0001.f000.png" else old)
                                         for name, old in members])
    found(folder, words)


def test_an_overlap_of_segments_that_are_not_there_is_found(folder):
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
    found(folder, "frames of all shards are 11, its totals say 12")


def test_a_set_without_manifest_is_found(tmp_path):
    found(tmp_path, "manifest.json: cannot be read")


def test_whatever_byte_is_damaged_verifying_ends_and_finds_what_matters(folder):
    """One byte or the end of a file changed: never an exception, and never a tar or plan that passes as sound.

    Manifest and index have bytes that nobody reads.
    """
    rng = random.Random(0)
    for name in ("train-000000.tar", "plan.json", "manifest.json", "index.parquet"):
        path = folder / name
        whole = path.read_bytes()
        for at in rng.sample(range(len(whole)), 60):
            for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:]):
                path.write_bytes(damaged)
                assert verify(folder) or name in ("manifest.json", "index.parquet"), (name, at)
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
    found(folder, f"cannot read shard: '{lost}'")


def test_a_manifest_that_says_something_else_than_the_plan_is_found(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"cow"', '"cat"'))
    found(folder, "categories is not that of plan.json")
