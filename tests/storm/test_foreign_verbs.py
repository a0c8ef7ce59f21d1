"""Whole verbs on what others made: one bad video is skipped and counted, and nothing appears outside of the run."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import evaluate, make_shards, predict, train_stage_one
from jobs.evaluate import ScoreVideo
from jobs.recipes.schema import Recipe
from jobs.verb import guarded
from pipeline.datasets.raw_video import RawVideo
from pipeline.errors import BadInput
from pipeline.shards import ShardSet
from tests.pipeline.shards.index_files import change_rows, rows_of
from tests.runs import here, scored, tiny_run
from tests.untrained_run import predicting, untrained_run, write_video


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def change_ids(folder: Path, id: str) -> str:
    """Give the first video of a shard set another id; returns the old one."""
    old = rows_of(folder)[0]["video_id"]

    def change(rows: list[dict]) -> None:
        for row in rows:
            row["video_id"] = id if row["video_id"] == old else row["video_id"]

    change_rows(folder, change)
    return old


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of a run whose shards are made."""
    folder = tmp_path_factory.mktemp("made") / "run"
    make_shards.main(here(tiny_run(folder)))
    return folder


@pytest.fixture
def recipe(made, tmp_path) -> Recipe:
    """The same run in a folder of its own, which a test may change."""
    shutil.copytree(made / "shards", tmp_path / "a/b/c/run/shards")
    return here(tiny_run(tmp_path / "a/b/c/run"))


def outside(folder: Path) -> set[str]:
    """The results outside of the run; MLflow keeps its copies beside it."""
    return {name for name in files_in(folder) if not name.startswith(("a/b/c/run/", "a/b/c/artifacts/"))
            and name.endswith((".mp4", ".json", ".png", ".zip"))}


@pytest.mark.parametrize("keep_predictions", [False, True])
@pytest.mark.parametrize("id", ["../../../../x", "/tmp/never/x", "n" * 3000], ids=["up", "absolute", "long"])
def test_an_id_that_is_a_path_is_not_written(recipe, tmp_path, id, keep_predictions):
    change_ids(recipe.shards_of("val"), id)
    recipe = scored(recipe, mode="untrained", keep_predictions=keep_predictions, overlays=10)
    before = files_in(tmp_path)
    said = ScoreVideo(recipe=recipe)(video=0)
    assert said["reason"] == "bad-name"
    assert files_in(tmp_path) == before
    assert not Path("/tmp/never").exists()


def test_such_a_video_is_skipped_and_the_others_are_scored(recipe, tmp_path):
    change_ids(recipe.shards_of("val"), "../../../../x")
    said = evaluate.main(scored(recipe, mode="untrained", keep_predictions=False, overlays=10))
    videos = len(ShardSet(recipe.shards_of("val")).videos)
    assert (said["videos"], len(said["overlays"])) == (videos - 1, videos - 1)
    assert [row["reason"] for row in said["skipped"]] == ["bad-name"]
    assert outside(tmp_path) == set()


def test_the_name_of_a_shard_cannot_run_a_command(recipe, tmp_path, monkeypatch, capsys):
    """The verb ends with the exit code for data."""
    monkeypatch.chdir(tmp_path)
    folder = recipe.shards_of("train")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0]["name"] = "x';touch mark;'.tar"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    config = replace(recipe.stage_one.input, streaming=True, workers=0, stream_from="pipe:cat '{shard}'")
    recipe = replace(recipe, stage_one=replace(recipe.stage_one, input=config))
    assert guarded(train_stage_one.main, lambda: recipe) == 3
    assert "cannot be streamed" in capsys.readouterr().err
    assert not (tmp_path / "mark").exists()


def test_what_is_no_file_beside_videos_costs_itself_when_it_is_predicted(tmp_path):
    recipe = untrained_run(tmp_path / "run")
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "good.mp4")
    os.mkfifo(tmp_path / "in" / "pipe.mp4")
    (tmp_path / "in" / "zero.mp4").symlink_to("/dev/zero")
    (tmp_path / "in" / "loop.mp4").symlink_to("loop.mp4")
    said = predict.main(predicting(recipe, tmp_path / "in", tmp_path / "out"))
    assert [Path(video["path"]).name for video in said["videos"]] == ["good.mp4"]
    assert {Path(row["video"]).stem: row["reason"] for row in said["skipped"]} == {
        "pipe": "not-a-file", "zero": "not-a-file", "loop": "unreadable"}


@pytest.mark.parametrize("content", ["#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
                                     "ffconcat version 1.0\nfile 'secret.mp4'\n",
                                     "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\n"
                                     "m=video 5004 RTP/AVP 96\n"],
                         ids=["m3u8", "ffconcat", "sdp"])
def test_a_playlist_that_is_called_a_video_opens_no_other_file(tmp_path, content):
    write_video(tmp_path / "secret.mp4")
    (tmp_path / "in.mp4").write_text(content.replace("{secret}", str(tmp_path / "secret.mp4")))
    with pytest.raises(BadInput, match="playlist") as raised:
        RawVideo(tmp_path / "in.mp4")
    assert raised.value.reason == "not-a-video"
    assert RawVideo(tmp_path / "secret.mp4").frame_names
