"""The demo in an object store, on Ray: its objects have the bytes of a run in a folder."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.object_store import BUCKET
from jobs import demo
from pipeline import store
from pipeline.files import sha256_of
from pipeline.foreign_files import open_regular
from tests.object_store import store_for_tests
from tests.runs import tiny_run
from tests.storm.mlflow_server import Server, running

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

ADDRESS = f"s3://{BUCKET}/run"

# Files of which a part differs between any two runs, and that part. All else of them is compared.
OWN_FIELDS = {
    "progress.jsonl": {"time", "seconds", "data_wait", "samples_per_second"},       # times
    "scores.json": {"command", "frames_per_second", "predictions", "overlays"},     # a time, and the run's folder
    "model.json": {"recipe_digest", "code", "seal"},        # the run's folder, and whether the clone was changed
}
OWN_FILES = {"tracking", "tracking.json"}       # names of the runs of MLflow, and what waits for it
ONLY_PRESENT = {".mp4"}                         # H.264 of the same frames has other bytes each time
OF_THE_DEMO = ("scores/untrained/", "summary.json", "report.html")      # which the verbs alone do not leave


def run_demo(folder: str) -> None:
    """The demo with the recipe `tiny` on a Ray of its own."""
    import ray

    from jobs.cluster import ClusterConfig, connect

    recipe = tiny_run(store.working_path(folder))
    store.look(recipe.run_folder)
    connect(ClusterConfig(object_store_mb=200))
    demo.main(recipe)
    ray.shutdown()


def contents(folder: Path) -> dict[str, str]:
    """Digest of what is compared of every file of a run; of a tar of maps, of each of its members."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or OWN_FILES & set(name.split("/")):
            continue
        if path.suffix in ONLY_PRESENT:
            found[name] = "present"
        elif path.name in OWN_FIELDS:
            found[name] = digest_of(json.dumps(shared_fields(path)).encode())
        elif path.suffix == ".tar" and "predictions" in name:
            with open_regular(path) as file, tarfile.open(fileobj=file) as tar:
                found |= {f"{name.removesuffix('.tar')}/{member.name}": digest_of(tar.extractfile(member).read())
                          for member in tar}
        else:
            found[name] = sha256_of(path)
    return found


def shared_fields(path: Path) -> list[dict[str, Any]]:
    """The objects of a json, or of the lines of a jsonl, without the fields that are of one run."""
    with open_regular(path) as file:
        text = file.read().decode()
    parts = text.splitlines() if path.suffix == ".jsonl" else [text]
    return [{name: value for name, value in json.loads(part).items() if name not in OWN_FIELDS[path.name]}
            for part in parts]


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_demo_on_ray_gives_the_bytes_of_a_run_in_a_folder(finished_run, tmp_path, monkeypatch):
    with store_for_tests(tmp_path / "server") as environment, running(Server(tmp_path / "mlflow")) as tracker:
        (tmp_path / "machine").mkdir()
        done = subprocess.run([sys.executable, "-c", f"from tests.test_in_store import *; run_demo({ADDRESS!r})"],
                              env={**os.environ, **environment, "MLFLOW_TRACKING_URI": tracker.uri,
                                   "TMPDIR": str(tmp_path / "machine")}, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
        (tmp_path / "other").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "other"))
        folder = store.working_path(ADDRESS)
        store.look(folder)
        there = contents(folder)
    here = contents(finished_run.recipe.run_folder)
    assert sorted(here.keys() - there.keys()) == []
    assert [name for name in here if here[name] != there[name]] == []
    assert [name for name in there.keys() - here.keys() if not name.startswith(OF_THE_DEMO)] == []
