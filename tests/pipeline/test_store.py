"""Folders in a real object store: what one machine publishes, others read; nothing half-written can be read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.object_store import BUCKET, farther_away
from pipeline import store
from pipeline.clips import AugmentConfig
from pipeline.files import atomic_file, atomic_write, publish, remove_file, remove_folder, sha256_of
from pipeline.foreign_files import open_regular, read_file
from pipeline.shards import ShardConfig, ShardSet, make_shards, verify
from pipeline.training_input import InputConfig, training_batches
from tests.object_store import store_for_tests
from tests.pipeline.shards.toy_videos import toy_videos

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 2**20

# Publishes objects of several sizes and a folder again and again. Each object begins with the sha256 of what follows.
WRITER = """
import hashlib, json, os, sys, tempfile, uuid
from pathlib import Path
from pipeline import store
from pipeline.files import atomic_write, partial_path, publish
folder = store.working_path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
def content(size):
    rest = os.urandom(size)
    return hashlib.sha256(rest).digest() + rest
def write_folder(path):
    partial = partial_path(path)
    partial.mkdir()
    files = {name: content(6 * 2**20) for name in ("model.bin", "z.bin")}
    for name, value in files.items():
        (partial / name).write_bytes(value)
    (partial / "state.json").write_text(json.dumps({name: len(value) for name, value in files.items()}))
    publish(partial, path)
while True:
    for name, size in (("small.json", 1000), ("large.bin", 12 * 2**20), ("in_place.tar", 7 * 2**20), ("step", 0)):
        value = content(size)
        print("begins", name, flush=True)
        if size:
            atomic_write(folder / name, value)
        else:
            write_folder(folder / f"step-{uuid.uuid4().hex[:8]}")
        print("ended", name, flush=True)
"""


# The emulator of Google's store serves one connection at a time. A program that is killed leaves one which never ends.
s3_only = pytest.mark.parametrize("scheme", ["s3"], indirect=True, scope="module")


@pytest.fixture(scope="module", params=store.SCHEMES)
def scheme(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def server(scheme, tmp_path_factory):
    with store_for_tests(tmp_path_factory.mktemp("store") / "server", scheme) as environment:
        yield environment


@pytest.fixture
def machine(server, tmp_path, monkeypatch):
    """Makes this process one of another machine: it has other working folders."""
    def become(name: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))

    become("first")
    return become


@pytest.fixture
def address(request, scheme) -> str:
    return f"{scheme}://{BUCKET}/{request.node.name}"


def folder_of(address: str) -> Path:
    """The working folder of an address on this machine, as the store is now."""
    folder = store.working_path(address)
    store.look(folder)
    return folder


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / name, content)
    return folder / name


def test_addresses_and_the_paths_that_stand_for_them():
    path = store.working_path("s3://bucket/run/a b")
    assert store.in_store(path)
    assert store.in_store(path / "stage_one" / "model.json")
    assert not store.in_store(path.with_name("x.0000aaaa-12-0123abcd.partial"))
    assert not store.in_store("/data/s3/run")
    assert store.shown(f"in {path}, and --set folder={path}/x") == (
        "in s3://bucket/run/a b, and --set folder=s3://bucket/run/a b/x")
    assert [store.is_address(text) for text in ("s3://b/c", "gs://b", "hdfs://b/c", "/data", "s3:/b")] == [
        True, True, False, False, False]


def test_what_one_machine_publishes_another_one_reads(machine, address):
    path = written(folder_of(address), "deep/a.json", b"[1]")
    assert path.read_bytes() == b"[1]"
    machine("second")
    there = folder_of(address) / "deep/a.json"
    assert there.stat().st_size == 3
    assert there.stat().st_mode & 0o777 == 0o200        # its content is not on this machine
    assert read_file(there) == b"[1]"
    assert there.read_bytes() == b"[1]"
    machine("first")
    written(folder_of(address), "deep/a.json", b"[2, 3]")
    machine("second")
    assert read_file(folder_of(address) / "deep/a.json") == b"[2, 3]"
    remove_file(there)
    machine("first")
    assert not (folder_of(address) / "deep/a.json").exists()


def test_an_object_whose_name_leads_out_of_the_folder_is_left_out(machine, address, monkeypatch, caplog):
    folder = folder_of(address)
    written(folder, "a.json", b"[1]")
    [whole] = store._objects(store.place_of(folder))
    names = ["../../../../outside.json", "deep/../../outside.json", "n" * 300, "b//c.json", "c\0d"]
    strange = [SimpleNamespace(path=f"{store.place_of(folder).key}/{name}", size=9, mtime_ns=0) for name in names]
    monkeypatch.setattr(store, "_objects", lambda place: iter([*strange, whole]))
    folder_of(address)
    assert [path.name for path in folder.parent.rglob("*") if path.is_file()] == ["a.json"]
    assert not list(Path(tempfile.gettempdir()).rglob("outside.json"))
    assert "5 objects are left out" in caplog.text


def test_a_path_with_dots_stands_for_the_object_that_it_leads_to():
    path = store.working_path("s3://bucket/run")
    assert store.place_of(path / "deep/../a.json").key == "bucket/run/a.json"
    assert store.place_of(path / "../../../../../outside.json") is None
    with pytest.raises(ValueError, match="has a part"):
        store.working_path("s3://bucket/../other/run")


def test_working_folders_are_of_this_user_alone(machine, address):
    written(folder_of(address), "a.json", b"[1]")
    root = Path(store.place_of(folder_of(address)).root)
    assert root.stat().st_mode & 0o777 == 0o700
    root.chmod(0o777)
    with pytest.raises(PermissionError, match="set TMPDIR"):
        folder_of(address)


def test_an_object_that_is_replaced_while_it_is_opened_is_not_read_as_zeros(machine, address, monkeypatch):
    path = written(folder_of(address), "a.json", b"[1]")
    store.release([path])
    fetch = store._fetch_file
    monkeypatch.setattr(store, "_fetch_file", lambda path: (fetch(path), store.release([path])))
    with pytest.raises(OSError, match=r"was replaced while it was read|Permission denied"):
        read_file(path)


def test_a_second_look_keeps_what_is_here(machine, address):
    written(folder_of(address), "a.bin", b"content")
    path = folder_of(address) / "a.bin"
    assert path.read_bytes() == b"content"
    store.release([path])
    assert path.stat().st_size == 7
    store.fetch(path.parent)
    assert path.read_bytes() == b"content"


def test_looking_again_shows_what_another_machine_has_published_since(machine, address):
    store.forget()
    folder = folder_of(address)
    machine("second")
    written(store.working_path(address), "a.json", b"[1]")
    assert not (folder / "a.json").exists()
    store.look_again()
    assert read_file(folder / "a.json") == b"[1]"


def test_a_folder_is_uploaded_with_its_json_last(machine, address, monkeypatch):
    partial = Path(tempfile.gettempdir()) / "step-1.partial"
    partial.mkdir()
    for name in ("a.json", "model.safetensors", "z.pt"):
        (partial / name).write_text(name)
    order = []
    upload = store._upload
    monkeypatch.setattr(store, "_upload", lambda file, *rest: (upload(file, *rest), order.append(file.name)))
    folder = folder_of(address)
    folder.mkdir(parents=True)
    publish(partial, folder / "step-1")
    assert sorted(order[:2]) == ["model.safetensors", "z.pt"]
    assert order[2:] == ["a.json"]
    machine("second")
    assert sorted(path.name for path in (folder_of(address) / "step-1").iterdir()) == sorted(order)
    remove_folder(folder_of(address) / "step-1")
    machine("first")
    assert not (folder_of(address) / "step-1/a.json").exists()


def test_an_error_while_a_file_is_written_publishes_nothing(machine, address):
    folder = folder_of(address)
    folder.mkdir(parents=True)

    def write() -> None:
        with atomic_file(folder / "a.bin") as file:
            file.write(b"half")
            raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        write()
    machine("second")
    assert not folder_of(address).exists()


def test_tars_are_read_in_place(machine, address):
    path = written(folder_of(address), "a.tar", bytes(range(256)) * 1000)
    assert path.stat().st_blocks == 0
    with open_regular(path) as file:
        assert file.read_at(3, 256) == b"\0\1\2"
    assert sha256_of(path) == hashlib.sha256(bytes(range(256)) * 1000).hexdigest()
    assert path.stat().st_blocks == 0


@s3_only
def test_an_object_that_is_gone_while_its_file_is_open_is_named(machine, address):
    path = written(folder_of(address), "a.tar", bytes(1000))
    with open_regular(path) as file:
        store.remove(path)
        with pytest.raises(OSError, match=re.escape(f"{address}/a.tar ")):
            store.read_at(file, path, 10, 500)


def test_a_store_that_does_not_answer_is_named(machine, server, address, monkeypatch):
    monkeypatch.setattr(store, "_REQUEST_SECONDS", 2.0)
    [variable] = [name for name in server if name in ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST")]
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=rf"{re.escape(address)} cannot be used.*{variable}"):
        folder_of(address)


@s3_only
def test_credentials_that_the_store_refuses_are_named(machine, server, address, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store._filesystem.cache_clear()     # a process reads them once
    with pytest.raises(ConnectionError, match=rf"{re.escape(address)} cannot be used.*AWS_ACCESS_KEY_ID"):
        folder_of(address)
    store._filesystem.cache_clear()


def test_a_bucket_that_is_not_there_is_named_and_not_taken_for_an_empty_folder(machine, scheme):
    said = "no-such-bucket/run cannot be used: the bucket 'no-such-bucket' does not exist"
    with pytest.raises(ConnectionError, match=said):
        folder_of(f"{scheme}://no-such-bucket/run")


def test_a_machine_that_reaches_the_store_has_no_fault(machine, address, monkeypatch):
    store.write_token(address, "token")
    assert store.fault(address, "token") == ""
    assert store.fault(address, "") == ""
    assert "cannot be used there" in store.fault(address, "other")


def test_tokens_of_killed_processes_are_deleted_when_they_are_old(machine, address):
    for token in (".check-1", ".check-2", "other"):
        store.write_token(address, token)
    store.remove_old_tokens(address, ".check-", seconds=3600)
    assert store.fault(address, ".check-1") == ""
    store.remove_old_tokens(address, ".check-", seconds=-3600)
    assert "cannot be used there" in store.fault(address, ".check-1")
    assert "cannot be used there" in store.fault(address, ".check-2")
    assert store.fault(address, "other") == ""


def kills(machine, address: str, count: int) -> int:
    """Kill so many writers at planned moments and read what is in the store then; returns how many were uploading."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": tempfile.gettempdir()}
    hits = 0
    for kill in range(count):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, address], env=environment, stdout=subprocess.PIPE,
                                  text=True)
        target = ("large.bin", "in_place.tar", "step")[kill % 3]
        while writer.stdout.readline() != f"begins {target}\n":
            pass
        time.sleep(0.08 * (kill // 3 + 0.5) / max(count // 3, 1))     # moments from the start of the upload to its end
        writer.send_signal(signal.SIGKILL if kill % 2 else signal.SIGTERM)
        hits += f"ended {target}\n" not in writer.communicate()[0]
        machine(f"after_{kill}")
        refuse_half_written(folder_of(address))
    return hits


def refuse_half_written(folder: Path) -> None:
    """Every object that can be read is whole, and a folder with its json has all that the json lists."""
    objects = [path for path in folder.rglob("*") if path.is_file()]
    assert folder / "small.json" in objects
    for path in objects:
        if path.name == "state.json":
            for name, size in json.loads(read_file(path)).items():
                assert (path.parent / name).stat().st_size == size
            continue
        with open_regular(path) as file:
            content = file.read()
        assert content[:32] == hashlib.sha256(content[32:]).digest(), path


@s3_only
def test_killed_while_it_uploads_nothing_half_written_can_be_read(machine, address):
    assert kills(machine, address, 3) > 0


@s3_only
@pytest.mark.slow
@pytest.mark.long
def test_killed_at_many_moments_of_uploads_nothing_half_written_can_be_read(machine, address):
    hits = kills(machine, address, 36)
    print(f"{hits} of 36 kills hit an upload")
    assert hits >= 18


def test_shards_in_a_store_are_those_of_a_folder(machine, address, tmp_path):
    data = toy_videos(tmp_path / "toy", {"a": 6, "b": 5, "c": 4})
    config = ShardConfig(clip_frames=4, min_shards=2)
    here = make_shards(data, tmp_path / "shards", config, split="train")
    made = make_shards(data, folder_of(address), config, split="train")
    assert made.fingerprint == here.fingerprint
    machine("second")
    there = folder_of(address)
    assert {path.name: sha256_of(path) for path in there.iterdir()} == {
        path.name: sha256_of(path) for path in (tmp_path / "shards").iterdir()}
    assert verify(there) == []
    assert make_shards(data, there, config, split="train").fingerprint == here.fingerprint
    local = ShardSet(tmp_path / "shards")
    remote = ShardSet(there)
    for video in local.videos:
        assert remote.read(remote.videos[video.index], 0, len(video.frames)) == local.read(video, 0, len(video.frames))
    assert (there / "train-000000.tar").stat().st_blocks == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_training_reads_the_same_batches_from_a_store(machine, address, tmp_path, workers):
    data = toy_videos(tmp_path / "toy", {"a": 6, "b": 5, "c": 4})
    config = ShardConfig(clip_frames=4, min_shards=2)
    make_shards(data, tmp_path / "shards", config, split="train")
    make_shards(data, folder_of(address), config, split="train")
    machine("second")
    settings = InputConfig(augment=AugmentConfig(size=(33, 49)), batch_size=2, clip_frames=2, workers=workers)
    batches = [training_batches(ShardSet(folder), settings) for folder in (tmp_path / "shards", folder_of(address))]
    for _ in range(4):
        ours, theirs = map(next, batches)
        assert (ours.frames == theirs.frames).all()
        assert ours.videos == theirs.videos


def test_a_data_set_in_a_store_is_fetched_video_by_video(machine, address, tmp_path):
    local = toy_videos(tmp_path / "toy", {"a": 6, "b": 5})
    store.put(tmp_path / "toy", folder_of(address))
    machine("second")
    root = folder_of(address)
    data = type(local)(root=root, lengths=local.lengths)
    config = ShardConfig(clip_frames=4)
    assert make_shards(data, tmp_path / "one", config, split="train").fingerprint == make_shards(
        local, tmp_path / "two", config, split="train").fingerprint
    assert all(path.stat().st_blocks == 0 for path in root.rglob("*.jpg"))      # their room is free again


@s3_only
def test_the_proxy_makes_a_server_farther_away(server, address):
    from pyarrow.fs import S3FileSystem

    def seconds(endpoint: str) -> float:
        files = S3FileSystem(endpoint_override=endpoint)
        files.get_file_info(BUCKET)
        began = time.perf_counter()
        files.get_file_info(BUCKET)
        return time.perf_counter() - began

    near = seconds(server["AWS_ENDPOINT_URL"])
    with farther_away(server["AWS_ENDPOINT_URL"], 0.2) as endpoint:
        assert seconds(endpoint) > near + 0.1
