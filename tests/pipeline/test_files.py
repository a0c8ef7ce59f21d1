"""Files are complete or absent."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.files import atomic_file, atomic_write, canonical_json, digest, partial_path, sha256_of, sweep_partials
from tests.storm.small_disk import disk_of


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    atomic_write(tmp_path / "a", b"old")
    with pytest.raises(TypeError), atomic_file(tmp_path / "a") as file:
        file.write("text, not bytes")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_full_disk_names_the_file_and_the_cure_and_other_errors_stay_as_they_are(tmp_path):
    with disk_of(1000), pytest.raises(OSError, match=re.escape(str(tmp_path / "a"))) as error:
        atomic_write(tmp_path / "a", bytes(5000))
    assert "run the same command again" in "".join(error.value.__notes__)
    with pytest.raises(FileNotFoundError, match="missing"), atomic_file(tmp_path / "a"):
        (tmp_path / "missing").read_bytes()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("content", "is_error"), [(b"old", False), (b"new", True), (b"longer", True)])
def test_on_a_read_only_disk_a_file_that_is_right_already_is_no_error(tmp_path, monkeypatch, content, is_error):
    atomic_write(tmp_path / "a", b"old")

    def refuse(self, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr("pipeline.files.partial_path", lambda path: Path("/proc/no_such_file"))
    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr("builtins.open", lambda path, *_: refuse(path))
    if not is_error:
        atomic_write(tmp_path / "a", content)
        return
    with pytest.raises(OSError, match="Read-only") as raised:
        atomic_write(tmp_path / "a", content)
    assert raised.value.errno == errno.EROFS


def test_a_folder_in_the_place_of_a_file_is_named_with_its_cure(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        atomic_write(tmp_path / "a", b"new")
    assert str(tmp_path / "a") in raised.value.__notes__[0]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_has_its_name_only_when_complete(tmp_path):
    with atomic_file(tmp_path / "a") as file:
        file.write(b"new")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"new"


def test_sweeping_removes_unfinished_files_only(tmp_path):
    atomic_write(tmp_path / "a", b"")
    (tmp_path / "b.1234.partial").write_bytes(b"half")
    assert sweep_partials(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_sweeping_leaves_what_a_living_process_writes_and_finds_the_rest_in_folders(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    (tmp_path / "deep").mkdir()
    mine = partial_path(tmp_path / "deep" / "a")
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{child.pid}-"))
    elsewhere, long_ago = (tmp_path / f"{name}.00000000-1-12345678.partial" for name in "ab")
    for path in (mine, elsewhere, long_ago):
        path.write_bytes(b"half")
    dead.mkdir()
    (dead / "inside").write_bytes(b"half")
    os.utime(long_ago, (1e9, 1e9))
    assert sweep_partials(tmp_path) == 2
    assert [path.exists() for path in (mine, elsewhere, dead, long_ago)] == [True, True, False, False]


def test_a_wrong_clock_of_this_machine_makes_no_file_look_abandoned(tmp_path, monkeypatch):
    elsewhere = tmp_path / "a.00000000-1-12345678.partial"
    elsewhere.write_bytes(b"half")
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert sweep_partials(tmp_path) == 0
    assert list(tmp_path.iterdir()) == [elsewhere]


def test_equal_values_have_one_json():
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == canonical_json({"a": "é", "b": [1, 2.5]})
    assert digest({"a": 1}) != digest({"a": 2})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


def test_sha256_is_the_known_one(tmp_path):
    atomic_write(tmp_path / "a", b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
