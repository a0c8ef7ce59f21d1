"""A file is read once for its sha256, and again after every change; this is remembered per machine and user."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline import digests
from pipeline.digests import known_sha256, refuse_other_content, remembered_sha256
from pipeline.errors import Mismatch
from pipeline.files import sha256_of


@pytest.fixture
def reads(tmp_path, monkeypatch) -> list[Path]:
    """The files that were read, with a memory of its own, in which new files count as settled."""
    read = []
    monkeypatch.setattr(digests, "sha256_of", lambda path: read.append(path) or sha256_of(path))
    monkeypatch.setattr(digests, "_memory", digests._Memory())
    monkeypatch.setattr(digests, "SETTLED", -1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return read


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "data" / "x"
    path.parent.mkdir()
    path.write_bytes(b"abc")
    return path


def forget(monkeypatch) -> None:
    """As in another process."""
    monkeypatch.setattr(digests, "_memory", digests._Memory())


def test_a_file_is_read_once_by_all_processes_of_a_machine(file, reads, monkeypatch):
    assert known_sha256(file) == known_sha256(str(file)) == sha256_of(file)
    assert len(reads) == 1
    forget(monkeypatch)
    assert known_sha256(file) == sha256_of(file)
    assert len(reads) == 1
    assert [path.name for path in file.parent.iterdir()] == ["x"]


def test_a_change_is_seen_even_with_the_old_size_and_time(file, reads, monkeypatch):
    known_sha256(file)
    before = file.stat()
    file.write_bytes(b"abd")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert known_sha256(file) == sha256_of(file)
    forget(monkeypatch)
    other = file.with_name("y")
    other.write_bytes(b"xyz")
    other.replace(file)
    assert known_sha256(file) == sha256_of(file)
    assert len(reads) == 3


def test_a_file_that_has_just_changed_is_read_again(file, reads, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED", 3600)
    known_sha256(file)
    known_sha256(file)
    assert len(reads) == 2


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b'["x"]', b'["x", 1, "y"]', b"\xff", b'["x", 1,'])
def test_a_damaged_record_costs_a_reading(file, reads, monkeypatch, content):
    known_sha256(file)
    (record,) = Path(tempfile.gettempdir()).glob("*/*.jsonl")
    record.write_bytes(content)
    forget(monkeypatch)
    assert known_sha256(file) == sha256_of(file)
    assert len(reads) == 2


def test_files_of_a_folder_are_remembered_without_reading_them(file, reads, monkeypatch):
    for name in "yz":
        file.with_name(name).write_bytes(name.encode())
        known_sha256(file.with_name(name))
    forget(monkeypatch)
    assert remembered_sha256(file.parent, "xyz!") == {name: sha256_of(file.with_name(name)) for name in "yz"}
    file.with_name("y").write_bytes(b"other")
    assert remembered_sha256(file.parent, "xyz!") == {"z": sha256_of(file.with_name("z"))}
    assert len(reads) == 2


def test_a_record_that_has_grown_long_begins_anew(file, reads, monkeypatch):
    monkeypatch.setattr(digests, "LONGEST_RECORD", 300)
    for times in range(10):
        file.write_bytes(bytes(times))
        assert known_sha256(file) == sha256_of(file)
    (record,) = Path(tempfile.gettempdir()).glob("*/*.jsonl")
    assert record.stat().st_size < 600
    forget(monkeypatch)
    assert remembered_sha256(file.parent, "x") == {"x": sha256_of(file)}


def test_a_place_that_others_may_write_to_is_not_believed(file, reads, monkeypatch):
    known_sha256(file)
    (place,) = Path(tempfile.gettempdir()).iterdir()
    place.chmod(0o777)
    forget(monkeypatch)
    known_sha256(file)
    known_sha256(file)
    assert len(reads) == 2


def test_processes_that_start_together_read_a_file_once(file, tmp_path):
    """Those that come later wait for the first."""
    os.utime(file.parent)
    script = ("import sys, pathlib\nfrom pipeline import digests\ndigests.SETTLED = -1\nreal = digests.sha256_of\n"
              "digests.sha256_of = lambda path: print('read') or __import__('time').sleep(0.5) or real(path)\n"
              "digests.known_sha256(sys.argv[1])")
    started = [subprocess.Popen([sys.executable, "-c", script, str(file)], stdout=subprocess.PIPE,
                                cwd=Path(__file__).parents[2], env={**os.environ, "TMPDIR": str(tmp_path)})
               for _ in range(3)]
    assert sorted(process.communicate(timeout=60)[0] for process in started) == [b"", b"", b"read\n"]


def test_other_content_is_refused_with_both_values_and_the_cure(file, reads):
    refuse_other_content(file, sha256_of(file), listed_in="the card", cure="Copy it again.")
    with pytest.raises(Mismatch, match=rf"{file} has sha256 ba7816bf8f01\.\.\., but the card lists 0{{12}}.*Copy it"):
        refuse_other_content(file, "0" * 64, listed_in="the card", cure="Copy it again.")
