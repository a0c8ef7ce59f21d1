"""A run whose folder is in an object store, on Ray: its objects have the bytes of the run in a folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

from benchmarks.object_store import BUCKET
from jobs import cache_queries, evaluate, make_shards, train_stage_one, train_stage_two
from pipeline import store
from pipeline.files import sha256_of
from pipeline.foreign_files import open_regular
from tests.object_store import store_for_tests
from tests.runs import scored, tiny_run
from tests.storm.mlflow_server import Server, running

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

ADDRESS = f"s3://{BUCKET}/run"
MODES = ("near_online", "offline")
# What holds times, the name of the folder or a digest of it; and H.264, whose bytes differ between two runs anyway.
OF_ITS_OWN = {"progress.jsonl", "scores.json", "model.json", "tracking", "tracking.json"}
ALSO_OF_ITS_OWN = {".mp4", ".partial"}


def all_verbs(folder: str) -> None:
    """Every verb of the recipe `tiny` on a Ray of its own."""
    import ray

    from jobs.cluster import ClusterConfig, connect

    recipe = tiny_run(store.working_path(folder))
    store.look(recipe.run_folder)
    connect(ClusterConfig(object_store_mb=200))
    for verb in (make_shards, train_stage_one, cache_queries, train_stage_two):
        verb.main(recipe)
    for mode in MODES:
        evaluate.main(scored(recipe, mode=mode))
    ray.shutdown()


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file of a run that is comparable; of a tar of maps, of each of its members."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or path.suffix in ALSO_OF_ITS_OWN or OF_ITS_OWN & {path.name, *name.split("/")}:
            continue
        if path.suffix == ".tar" and "predictions" in name:
            with open_regular(path) as file, tarfile.open(fileobj=file) as tar:
                found |= {f"{name.removesuffix('.tar')}/{member.name}": digest_of(tar.extractfile(member).read())
                          for member in tar}
        else:
            found[name] = sha256_of(path)
    return found


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_every_verb_on_ray_gives_the_bytes_of_a_run_in_a_folder(finished_run, tmp_path, monkeypatch):
    with store_for_tests(tmp_path / "server") as environment, running(Server(tmp_path / "mlflow")) as tracker:
        (tmp_path / "machine").mkdir()
        done = subprocess.run([sys.executable, "-c", f"from tests.test_in_store import *; all_verbs({ADDRESS!r})"],
                              env={**os.environ, **environment, "MLFLOW_TRACKING_URI": tracker.uri,
                                   "TMPDIR": str(tmp_path / "machine")}, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
        (tmp_path / "other").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "other"))
        folder = store.working_path(ADDRESS)
        store.look(folder)
        there = contents(folder)
    here = contents(finished_run.recipe.run_folder)
    assert sorted(here.keys() ^ there.keys()) == []
    assert [name for name in here if here[name] != there[name]] == []
