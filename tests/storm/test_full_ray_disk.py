"""A full disk under Ray's own folder: the verb names it, and goes on once there is room."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import own_cluster, ray_room
from tests.conftest import ROOT
from tests.storm.small_disk import small_file_system

ROOM = 100 * 2**20


def small(folder: Path, size: int) -> Iterator[Path]:
    folder.mkdir()
    try:
        with small_file_system(folder, size):
            yield folder
    except subprocess.CalledProcessError:
        pytest.skip("this user may not mount a file system")


@pytest.fixture
def disk(tmp_path_factory) -> Iterator[Path]:
    """A small disk for Ray's logs, at a short path."""
    yield from small(tmp_path_factory.mktemp("r") / "r", ROOM)


@pytest.fixture
def tiny_disk(tmp_path_factory) -> Iterator[Path]:
    yield from small(tmp_path_factory.mktemp("r") / "r", 4096 * 4)


def test_ray_works_in_a_folder_that_has_room(tiny_disk, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tiny_disk))
    monkeypatch.setattr(own_cluster, "SHORT_TEMPORARY_FOLDERS", (str(tiny_disk), "/dev/shm"))
    assert own_cluster.ray_folder().parent == Path("/dev/shm")
    monkeypatch.setattr(own_cluster, "SHORT_TEMPORARY_FOLDERS", (str(tiny_disk),))
    with pytest.raises(ValueError, match=r"20 MB of room.*Set TMPDIR"):
        own_cluster.ray_folder()


FILLED = """
import logging, shutil, sys
from pathlib import Path
from jobs import make_shards
from jobs.cluster import connect
from jobs.verb import guarded
from tests.runs import tiny_run

class MakeRoom(logging.Handler):
    def emit(self, record):
        print(record.getMessage(), flush=True)
        filler.unlink(missing_ok=True)

disk = Path(sys.argv[1])
filler = disk / "filler"
recipe = tiny_run(Path(sys.argv[2]))
connect(recipe.cluster)
with filler.open("wb", buffering=0) as file:
    file.write(bytes(shutil.disk_usage(disk).free))
logging.getLogger("jobs.ray_room").addHandler(MakeRoom())
sys.exit(guarded(make_shards.main, lambda: recipe))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_verb_whose_ray_has_no_room_names_the_disk_and_goes_on_once_there_is_some(disk, tmp_path):
    ended = subprocess.run([sys.executable, "-c", FILLED, str(disk), str(tmp_path / "run")], cwd=ROOT, timeout=400,
                           env={**os.environ, "RAY_TMPDIR": str(disk)}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    assert f"waiting: the disk of Ray's folder {disk}/ray/session_" in ended.stdout
    assert "0 bytes are free. Make room there." in ended.stdout
    assert (tmp_path / "run" / "shards" / "val" / "manifest.json").exists()


def test_a_training_whose_ray_died_of_a_full_disk_names_it(tiny_disk, monkeypatch):
    monkeypatch.setattr(ray_room, "session_folder", lambda: tiny_disk)
    with pytest.raises(OSError, match=f"No space left on device, so that Ray's processes die: '{tiny_disk}'") as raised:
        ray_room.refuse_no_room()
    assert "RAY_TMPDIR" in raised.value.__notes__[0]
