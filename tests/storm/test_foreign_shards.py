"""A shard set made by others: names stay names, places stay inside the tars, and nothing in it reaches a shell."""

from __future__ import annotations

import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clips import AugmentConfig
from pipeline.errors import BadInput
from pipeline.shards import ShardConfig, ShardSet, make_shards, verify, write_index
from pipeline.training_input import InputConfig, training_batches
from tests.pipeline.shards.index_files import change_rows
from tests.pipeline.shards.toy_videos import toy_videos

CONFIG = InputConfig(augment=AugmentConfig(size=(33, 49)), batch_size=1, workers=0, streaming=True, copy_paste=None)


@pytest.fixture
def folder(tmp_path) -> Path:
    make_shards(toy_videos(tmp_path / "toy", {"a": 3, "b": 2}), tmp_path / "set", ShardConfig(clip_frames=4),
                split="train")
    return tmp_path / "set"


def rename(folder: Path, name: str) -> None:
    """List the only shard of a set under another name, and have a file of that name where there can be one."""
    manifest = json.loads((folder / "manifest.json").read_text())
    if "/" not in name and "\0" not in name:
        (folder / manifest["shards"][0]["name"]).rename(folder / name)
    manifest["shards"][0]["name"] = name
    (folder / "manifest.json").write_text(json.dumps(manifest))


def first_batch(folder: Path, stream_from: str, *, tars_here: bool = False):
    config = replace(CONFIG, stream_from=stream_from)
    return next(training_batches(ShardSet(folder, tars_here=tars_here), config))


SHELL = ["x;touch {mark};.tar", "$(touch {mark}).tar", "`touch {mark}`.tar", "x' ; touch {mark} ; '.tar",
         'x" ; touch {mark} ; ".tar', "a b.tar", "x|touch {mark}", "x&touch {mark}&", "--option.tar", "x\n.tar", "~",
         "*.tar", "pipe:touch {mark}"]


@pytest.mark.parametrize("quoted", ["{shard}", "'{shard}'", '"{shard}"', '"$(echo {shard})"'])
@pytest.mark.parametrize("name", SHELL)
def test_the_name_of_a_shard_never_becomes_a_command(tmp_path, folder, monkeypatch, name, quoted):
    monkeypatch.chdir(tmp_path)
    rename(folder, name.replace("{mark}", "mark"))
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(BadInput) as raised:
        first_batch(folder, f"pipe:cat {folder}/{quoted}")
    assert raised.value.reason == "bad-name"
    assert sorted(os.listdir(tmp_path)) == before


def test_a_name_with_the_scheme_of_a_command_is_a_file(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(folder)
    rename(folder, "pipe:touch mark")
    assert first_batch(folder, "{shard}").videos
    assert not (folder / "mark").exists()


def test_a_plain_name_is_still_streamed_by_a_command(folder):
    rename(folder, "my_set-1.0+x.tar")
    assert first_batch(folder, f"pipe:cat '{folder}/{{shard}}'").videos


@pytest.mark.parametrize("name", ["../other.tar", "/etc/passwd", "a/b.tar", "..", "", "a\\b.tar", "\0", "n" * 300,
                                  "x\r.tar", "-rf.tar", None, 7, ["a"]])
def test_a_shard_is_a_file_in_the_folder_of_its_manifest(folder, name):
    rename(folder, "kept.tar")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0]["name"] = name
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for use in (lambda: ShardSet(folder), lambda: ShardSet(folder, tars_here=False), lambda: write_index(folder)):
        with pytest.raises(BadInput, match=r"manifest\.json") as raised:
            use()
        assert raised.value.reason == "bad-name"
    assert ["manifest.json" in finding for finding in verify(folder)] == [True]


@pytest.mark.parametrize(("field", "value"), [
    ("offset", -1), ("offset", 2**40), ("length", 2**40), ("length", -5), ("shard", 7), ("shard", -1),
    ("height", 2**30), ("width", 0), ("frame_names", []), ("members", [])])
def test_an_index_with_places_outside_of_its_tars_is_refused(folder, field, value):
    def change(rows):
        target = rows[0]["members"][0] if field in ("offset", "length") else rows[0]
        target[field] = value

    change_rows(folder, change)
    with pytest.raises(BadInput, match=r"index\.arrow.*Delete the index") as raised:
        list(ShardSet(folder).videos)
    assert raised.value.reason == "damaged-shard"
    (folder / "index.arrow").unlink()
    assert len(ShardSet(folder).videos) == 2


def test_an_index_of_more_rows_than_clips_is_not_read(folder):
    change_rows(folder, lambda rows: rows * 100)
    with pytest.raises(BadInput, match=r"200 rows, .* lists 2 clips"):
        ShardSet(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"7", b"[" * 10**6, b'{"a":' * 10**6, b"\0" * 4096,
                                     b'{"schema": 2}', b'{"schema": 2, "shards": [7]}'], ids=lambda c: repr(c[:30]))
def test_a_manifest_that_is_none_is_named(folder, content):
    (folder / "manifest.json").write_bytes(content)
    for use in (lambda: ShardSet(folder), lambda: write_index(folder)):
        with pytest.raises(BadInput, match=r"manifest\.json.*run make_shards again") as raised:
            use()
        assert raised.value.reason == "damaged-shard"
    assert [finding.startswith(f"{folder}/manifest.json") for finding in verify(folder)] == [True]


@pytest.mark.parametrize("name", ["tar", "index.arrow", "manifest.json"])
def test_a_pipe_in_place_of_a_file_of_the_set_is_refused_at_once(folder, name):
    path = folder / ("train-000000.tar" if name == "tar" else name)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadInput):
        ShardSet(folder)
    with pytest.raises(BadInput):
        first_batch(folder, str(folder))


def test_a_member_that_claims_more_bytes_than_its_tar_is_refused(folder):
    """A sparse member of a terabyte needs one kilobyte."""
    path = folder / "train-000000.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a_c0000.f000.jpg")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": info.name,
                            "GNU.sparse.realsize": str(2**40)}
        info.size = 512
        tar.addfile(info, io.BytesIO(b"1\n0\n0\n".ljust(512, b"\0")))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0]["size"] = path.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "index.arrow").unlink()
    with pytest.raises(BadInput, match="no plain file inside the shard"):
        ShardSet(folder)
