"""Every json that the project writes, cut anywhere as a power cut leaves it: named with its cure, or made again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.made_before import NOTE, changed_since, note_sources
from jobs.models import is_finished, read_card, save_model
from jobs.sweeping.ranking import TrialResult
from jobs.sweeping.results import TrialRecords
from jobs.training.checkpoint import load_checkpoint
from jobs.training.identity import claim_folder
from jobs.training.tracker import open_record
from jobs.training.tracking import TrackingConfig, stored_ids
from model.contracts import PanopticVideo, VideoResults, VideoSegment
from model.labels import panoptic_id
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.errors import BadInput
from pipeline.files import sha256_of
from pipeline.foreign_files import own_json, whole_json
from pipeline.predictions import PredictionWriter, read_predictions
from pipeline.query_cache.cache import CacheWriter, QueryCache, finish_cache
from pipeline.seals import sealed
from pipeline.shards import ShardConfig, ShardSet, make_shards
from tests.pipeline.shards.toy_videos import CLASSES, toy_videos
from tests.runs import tiny_run

TORN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"", "first byte": lambda content: content[:1],
    "a third": lambda content: content[:len(content) // 3], "last byte": lambda content: content.rstrip()[:-1],
    "zeros": lambda content: bytes(len(content)), "half zeros":
    lambda content: content[:len(content) // 2].ljust(len(content), b"\0"),
    "a list": lambda content: b"[]", "deep": lambda content: b"[" * 10**6}


SEALED = TORN | {"a digit": lambda content: re.sub(rb"\d", lambda digit: b"1" if digit[0] != b"1" else b"2", content,
                                                   count=1)}


@pytest.fixture(params=SEALED)
def harm(request) -> Callable[[Path], None]:
    """As `tear`, and one digit that is another one, which only a seal shows."""
    return lambda path: path.write_bytes(SEALED[request.param](path.read_bytes()))


@pytest.fixture(params=TORN)
def tear(request) -> Callable[[Path], None]:
    """Replaces the content of a file by what is left of it."""
    return lambda path: path.write_bytes(TORN[request.param](path.read_bytes()))


def refused(path: Path, use: Callable[[], object], cure: str) -> None:
    with pytest.raises(BadInput, match=cure) as raised:
        use()
    assert str(path) in str(raised.value)


def test_every_cut_of_a_file_is_seen(tmp_path):
    content = json.dumps({"a": [1, 2, {"b": "ü"}], "c": None}, indent=1).encode()
    path = tmp_path / "x.json"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(BadInput, match=r"x\.json.*do this"):
            own_json(path, cure="do this")
        assert whole_json(path) is None
    path.write_bytes(content)
    assert own_json(path, cure="") == whole_json(path, needs={"a": list}) == json.loads(content)
    assert whole_json(path, needs={"a": dict}) is None
    assert whole_json(tmp_path / "nowhere") is None


def test_a_folder_in_the_place_of_a_file_is_named_with_the_cure(tmp_path):
    path = tmp_path / "x.json"
    path.mkdir()
    with pytest.raises(BadInput, match=r"x\.json: it is a folder where a file belongs\. Remove it\. do this"):
        own_json(path, cure="do this")
    assert whole_json(path) is None
    data = toy_videos(tmp_path / "toy", {"a": 3, "b": 2})
    make_shards(data, tmp_path / "set", ShardConfig(clip_frames=4), split="train")
    sidecar = tmp_path / "set" / "train-000000.json"
    sidecar.unlink()
    sidecar.mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        make_shards(data, tmp_path / "set", ShardConfig(clip_frames=4), split="train")
    assert f"{sidecar} is a folder where a file belongs: remove it" in raised.value.__notes__[0]


def test_one_changed_digit_of_a_sidecar_of_a_shard_means_that_it_is_made_again(tmp_path):
    data = toy_videos(tmp_path / "toy", {"a": 3, "b": 2})
    folder = tmp_path / "set"
    make_shards(data, folder, ShardConfig(clip_frames=4), split="train")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    sidecar = folder / "train-000000.json"
    sidecar.write_bytes(sidecar.read_bytes().replace(b'"offset":512', b'"offset":513', 1))
    assert sidecar.read_bytes() != before[sidecar.name]
    make_shards(data, folder, ShardConfig(clip_frames=4), split="train")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_changed_digit_of_a_trial_means_that_it_is_made_again(tmp_path, harm):
    records = TrialRecords(tmp_path)
    records.write(TrialResult(name="a", settings=("x=1",), seed=0, numbers={"vpq": 12.5}))
    assert records.read("a").numbers == {"vpq": 12.5}
    harm(tmp_path / "a.json")
    assert records.read("a") is None


def test_a_torn_note_of_what_shards_were_made_from_compares_nothing_and_is_made_again(tmp_path, harm):
    recipe = tiny_run(tmp_path / "run")
    note = recipe.run_folder / "shards" / NOTE
    note.parent.mkdir(parents=True)
    note_sources(recipe)
    before = note.read_bytes()
    other = replace(recipe, shards=replace(recipe.shards, clip_frames=3))
    assert "shards.clip_frames: " in changed_since(other, "train_stage_one")[0]
    harm(note)
    assert changed_since(other, "train_stage_one") == []
    note_sources(recipe)
    assert note.read_bytes() == before


@pytest.mark.parametrize("name", ["manifest.json", "train-000000.json", "plan.json"])
def test_a_torn_file_of_a_shard_set_is_named_or_made_again(tmp_path, tear, name):
    data = toy_videos(tmp_path / "toy", {"a": 3, "b": 2})
    folder = tmp_path / "set"

    def make():
        make_shards(data, folder, ShardConfig(clip_frames=4), split="train")
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    before = make()
    tear(folder / name)
    if name == "manifest.json":
        refused(folder / name, lambda: ShardSet(folder), "run make_shards again")
    elif name == "plan.json":
        refused(folder / name, make, "Delete it and run the same command again")
        (folder / name).unlink()
    assert make() == before


@pytest.fixture
def writer(tmp_path) -> PredictionWriter:
    return PredictionWriter(folder=tmp_path / "out", classes=CLASSES, made_by={"recipe": "tiny"})


def some_video(name: str = "v") -> VideoResults:
    id = panoptic_id(1, 1)
    return VideoResults(panoptic=PanopticVideo(video_id=name, frame_names=("0",),
                                               frames=[np.full((4, 5), id, np.int32)],
                                               segments={id: VideoSegment(class_index=1, track=1)}))


def test_a_torn_part_of_predictions_is_predicted_again(writer, harm):
    path = writer.write(some_video())
    writer.finish()
    before = path.read_bytes()
    harm(path)
    assert not writer.is_finished("v")
    with pytest.raises(ValueError, match="1 of 1 videos are not predicted"):
        writer.finish()
    writer.write(some_video())
    writer.finish()
    assert path.read_bytes() == before


def test_a_torn_manifest_of_predictions_is_named(writer, harm):
    writer.write(some_video())
    path = writer.finish()
    harm(path)
    refused(path, lambda: read_predictions(writer.folder), "Delete it and predict again")
    path.unlink()
    assert writer.is_finished("v")
    writer.finish()
    assert list(read_predictions(writer.folder)) == ["v"]


def empty_part(folder: Path) -> CacheWriter:
    folder.mkdir(exist_ok=True)
    return CacheWriter(folder, 0, dtype="float32", fingerprint="f")


def test_a_torn_sidecar_of_the_cache_means_that_its_part_is_made_again(tmp_path, harm):
    part = empty_part(tmp_path / "cache")
    summary = part.close()
    part.path.touch()       # a part without clips leaves only its sidecar
    assert empty_part(tmp_path / "cache").finished() == json.loads(json.dumps(summary))
    harm(part.sidecar)
    assert empty_part(tmp_path / "cache").finished() is None
    assert empty_part(tmp_path / "cache").close() == summary


def test_a_torn_manifest_of_the_cache_is_named(tmp_path, harm):
    summary = empty_part(tmp_path / "cache").close()
    path = finish_cache(tmp_path / "cache", {"clip_frames": 2}, [summary])
    assert list(QueryCache(path.parent).groups) == []
    harm(path)
    refused(path, lambda: QueryCache(path.parent), "run jobs.cache_queries again")


@pytest.mark.parametrize("file", ["../x.parquet", "/etc/passwd", "", None, 7])
def test_a_part_of_the_cache_is_a_file_in_its_folder(tmp_path, file):
    summary = empty_part(tmp_path / "cache").close()
    path = finish_cache(tmp_path / "cache", {"clip_frames": 2}, [{**summary, "file": file}])
    refused(path, lambda: QueryCache(path.parent), "run jobs.cache_queries again")


def test_a_torn_card_is_named_and_the_training_writes_it_again(tmp_path, harm):
    folder = tmp_path / "stage_one" / "model"
    card = {"kind": "segmenter", "config": {}, "recipe": "tiny", "identity": "i"}
    save_model(folder, {}, card)
    assert read_card(folder)["kind"] == "segmenter"
    harm(folder / "model.json")
    refused(folder / "model.json", lambda: read_card(folder), "delete it and run the training verb again")
    assert not is_finished([folder], {})


def test_a_torn_identity_is_named(tmp_path, harm):
    claim_folder(tmp_path, {"shards": "abc"})
    harm(tmp_path / "identity.json")
    refused(tmp_path / "identity.json", lambda: claim_folder(tmp_path, {"shards": "abc"}), "Delete it to train on")
    (tmp_path / "identity.json").unlink()
    claim_folder(tmp_path, {"shards": "abc"})


def test_a_torn_state_of_a_checkpoint_is_named(tmp_path, harm):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    state = {"step": 3, "files": {"model.safetensors": sha256_of(tmp_path / "model.safetensors")}}
    (tmp_path / "state.json").write_text(json.dumps(sealed(state)))
    harm(tmp_path / "state.json")
    refused(tmp_path / "state.json", lambda: load_checkpoint(tmp_path, model=None, optimizer=None),
            "resume from an earlier one")


def test_a_torn_tracking_file_is_made_again(tmp_path, tear, capsys):
    path = tmp_path / "tracking.json"
    path.write_text(json.dumps({"uri": "sqlite:///x", "parent": "p", "open": {"evaluate": "c"}}))
    tear(path)
    assert stored_ids(tmp_path) == {}
    assert "cut off or damaged" in capsys.readouterr().out


def opened(folder: Path):
    return open_record(TrackingConfig(), folder=folder, run_name="run", verb="evaluate", tags={})


def test_a_torn_record_of_a_verb_is_named_and_the_verb_gets_a_new_one(tmp_path, tear, capsys):
    record = opened(tmp_path)
    tear(record.folder / "run.json")
    assert opened(tmp_path) != record
    assert str(record.folder / "run.json") in capsys.readouterr().out


def test_a_torn_entry_of_a_record_is_not_counted_and_hides_no_other(tmp_path, tear):
    record = opened(tmp_path)
    record.put("numbers", [["loss", 1.0, 0, 1]])
    record.put("numbers", [["loss", 0.5, 0, 2]])
    before = record.waiting()
    tear(record.entries()[-1])
    assert before - record.waiting() in (0, 1)


def test_a_torn_world_is_named_and_drawn_again(tmp_path, tear):
    config = SyntheticConfig(videos_train=1, videos_val=1, frames=2, height=48, width=64)
    root = write_world(tmp_path / "world", config)
    tear(root / "world.json")
    refused(root / "world.json", lambda: write_world(root, config), "Delete the folder")
