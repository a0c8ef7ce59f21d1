"""A real head, a real `ray job submit`, its log followed to the end; only what was started here is stopped."""

from __future__ import annotations

import json
import re
import shlex
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from jobs.models import load_weights, read_card
from pipeline.images import encode_jpeg
from pipeline.query_cache import QueryCache
from pipeline.shards import ShardSet
from tests.job_logs import foreign_lines, summaries
from tests.own_data.exports import export
from tests.own_data.worlds import SOURCES
from tests.ray_head import Head

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    with closing(Head(tmp_path_factory.mktemp("head"))) as head:
        head.wait_until_ready()
        yield head


def test_the_six_verbs_run_to_their_end_in_a_submitted_job_and_leave_their_results(head, tmp_path):
    """`jobs.demo` is five verbs in one process, which spares each its start; the sixth is typed by itself."""
    stills = tmp_path / "stills"
    stills.mkdir()
    for frame in range(3):
        (stills / f"{frame}.jpg").write_bytes(encode_jpeg(np.full((48, 64, 3), 80 * frame, np.uint8)))
    changes = " ".join(f"--set {change}" for change in (
        f"folder={tmp_path}/run", f"predict.input={stills}", "world.videos_train=4", "world.videos_val=1",
        "stage_one.fit.steps=1", "stage_two.fit.steps=1", "cluster.workers=1", "cluster.actors=1"))
    code, log = head.submit(
        "sh", "-ec", f"for job in demo predict; do python -m jobs.$job --recipe tiny {changes}; done")
    assert code == 0, log
    assert "succeeded" in log
    assert foreign_lines(log) == []
    said = summaries(log)
    assert list(said) == ["jobs.demo", "jobs.predict"]

    folder = tmp_path / "run"
    for split, videos in (("train", 4), ("val", 1)):
        assert len(ShardSet(folder / "shards" / split).videos) == videos
    (cache,) = (folder / "cache").iterdir()
    assert len(QueryCache(cache).videos) == 4
    for stage in ("stage_one", "stage_two"):
        assert load_weights(folder / stage / "model")
        assert read_card(folder / stage / "model")["code"]["commit"].startswith("gcs://_ray_pkg_")    # there is no git
    assert said["jobs.demo"]["offline"].keys() == said["jobs.demo"]["near_online"].keys() >= {"vpq", "vpq_by_window"}
    assert Path(said["jobs.demo"]["overlay"]).is_file()
    (predicted,) = said["jobs.predict"]["videos"]
    assert (predicted["frames"], Path(predicted["overlay"]).is_file()) == (3, True)
    assert (folder / "predictions" / "tracks.json").is_file()


BIRDS = """
base = "tiny_vis"
folder = "run"                  # relative to this file
stage_two = "null"
evaluation.split = "val"

[dataset]
name = "labelme"
root = "."
"""


def test_a_recipe_file_beside_the_data_is_read_where_the_job_runs(head, tmp_path):
    """Its paths are relative to the file, and not to the folder into which the job's code was unpacked."""
    world = SOURCES["youtube_vis"].write(tmp_path / "world")
    root = export("labelme", world, tmp_path / "my birds")
    (root / "birds.toml").write_text(BIRDS)
    code, log = head.submit("python", "-m", "jobs.make_shards", "--recipe", str(root / "birds.toml"))
    assert code == 0, log
    for split, videos in (("train", 2), ("val", 1)):
        shards = ShardSet(root / "run" / "shards" / split)
        assert (len(shards.videos), shards.classes.name) == (videos, "labelme")
    [line] = [line for line in log.splitlines() if line.startswith("next: ")]
    words = shlex.split(line.removeprefix("next: "))
    submitted = words.index("--")
    assert words[:submitted] == ["ray", "job", "submit", "--address", head.address, "--working-dir", ".",
                                 "--runtime-env-json", json.dumps({"excludes": [".git"], "env_vars": {
                                     "MLFLOW_DISABLE_TELEMETRY": "..."}})]
    assert words[submitted + 1:] == ["python", "-m", "jobs.train_stage_one", "--recipe", str(root / "birds.toml")]


def test_a_relative_folder_inside_a_job_is_refused_with_the_cure_and_nothing_large_was_uploaded(head):
    code, log = head.submit(
        "sh", "-c", "ls -A | sed s/^/uploaded:/; python -m jobs.make_shards --recipe tiny; echo ended with $?")
    assert "error: relative paths in folder:" in log
    assert "--set folder=/data/runs/tiny" in log
    assert "ended with 2" in log
    assert re.search(r"ended with exit code 2 \(configuration\): relative paths in folder.*\nended with 2", log)
    uploaded = {line.removeprefix("uploaded:") for line in log.splitlines() if line.startswith("uploaded:")}
    assert {"jobs", "pipeline", "model", "pyproject.toml"} <= uploaded
    assert not {".git", ".venv", "runs"} & uploaded
    assert code == 0
