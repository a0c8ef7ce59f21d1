"""Errors of a full disk: the file, the bytes and the cure, whatever a library makes of them."""

from __future__ import annotations

import errno
import sqlite3
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.disk_space import NO_ROOM, cannot_write, explained, free_bytes, named, tells_of_full_disk
from pipeline.files import atomic_write
from tests.storm.small_disk import disk_of


@pytest.mark.parametrize("number", NO_ROOM)
def test_a_full_disk_is_told_with_the_bytes_that_a_file_needs(tmp_path, number):
    error = named(OSError(number, "text"), tmp_path / "a", 12_345)
    assert str(error) == f"[Errno {number}] text: '{tmp_path / 'a'}'"
    assert error.__notes__[0].startswith("The file needs 12,345 bytes. ")
    assert ("Raise the limit (ulimit -f unlimited)" if number == errno.EFBIG else "Make room") in error.__notes__[0]
    assert "run the same command again" in error.__notes__[0]


def test_the_free_bytes_are_those_of_the_folder_that_there_is(tmp_path):
    assert 0 < free_bytes(tmp_path / "not" / "there" / "yet") <= free_bytes(tmp_path) + 2**30
    assert "bytes are free" in named(OSError(errno.ENOSPC, "full"), tmp_path / "not" / "a").__notes__[0]


def test_a_read_only_disk_needs_another_place(tmp_path):
    assert "read-only" in named(OSError(errno.EROFS, "text"), tmp_path / "a").__notes__[0]


@pytest.mark.parametrize(("exists", "is_readable", "cure"), [
    (False, False, "may not write there. Get write permission"), (True, True, "may not write there"),
    (True, False, "may not read it. Get read permission")])
def test_a_missing_permission_is_told_as_one_to_write_or_to_read(tmp_path, monkeypatch, exists, is_readable, cure):
    if exists:
        (tmp_path / "a").touch()
    monkeypatch.setattr("os.access", lambda path, mode: is_readable)
    error = explained(PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "a")), tmp_path)
    assert cure in error.__notes__[0]
    assert cannot_write(error) == ("write" in cure)


def safetensors(folder: Path) -> None:
    save_file({"a": torch.zeros(5_000)}, folder / "a")



def plain_file(folder: Path) -> None:
    (folder / "a").write_bytes(bytes(5_000))


def in_a_child_process(folder: Path) -> None:
    raise RuntimeError("Traceback ...\nOSError: [Errno 28] No space left on device")


def sqlite(folder: Path) -> None:
    raise sqlite3.OperationalError("database or disk is full")


@pytest.mark.parametrize("write", [safetensors, plain_file, in_a_child_process, sqlite])
def test_errors_without_a_file_get_the_free_bytes_of_the_folders(tmp_path, write):
    with disk_of(1_000), pytest.raises(Exception) as raised:   # noqa: PT011 - each library has its own
        write(tmp_path)
    error = explained(raised.value, tmp_path)
    assert isinstance(error, OSError)
    assert f"bytes in {tmp_path}" in error.__notes__[0]
    assert "Make room" in error.__notes__[0]
    assert "\n" not in str(error)


def test_other_errors_and_those_that_have_a_cure_stay_as_they_are(tmp_path):
    for error in (RuntimeError("shapes differ"), OSError(errno.EACCES, "no", "a"), FileNotFoundError("b")):
        assert explained(error, tmp_path) is error
    with disk_of(1_000), pytest.raises(OSError, match="large") as raised:
        atomic_write(tmp_path / "a", bytes(5_000))
    assert explained(raised.value, tmp_path) is raised.value


def test_the_reason_of_an_error_is_found_behind_it(tmp_path):
    error = RuntimeError("writing failed")
    error.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded", str(tmp_path / "a"))
    assert str(explained(error, tmp_path)) == f"[Errno {errno.EDQUOT}] Disk quota exceeded: '{tmp_path / 'a'}'"


@pytest.mark.parametrize(("text", "full"), [
    ("IoError(Os { code: 28 }): No space left on device (os error 28)", True), ("disk quota exceeded", True),
    ("ray.exceptions.OutOfDiskError: Local disk is full", True), ("the file is too large to be a picture", False)])
def test_messages_of_other_programs(text, full):
    assert tells_of_full_disk(text) == full


def test_where_every_temporary_folder_is_full_the_cure_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path)])
    with disk_of(0):
        with pytest.raises(FileNotFoundError) as raised:
            tempfile.gettempdir()
        error = explained(raised.value, tmp_path)
        assert "set TMPDIR to a folder with room" in error.__notes__[0]
        assert str(tmp_path) in str(error)
        unnamed = explained(sqlite3.OperationalError("database or disk is full"), tmp_path)
    assert f"bytes in {tmp_path}" in unnamed.__notes__[0]
