"""Where Ray keeps its sockets, and paths that its unquoted commands cannot hold. `tests/machines` starts it there."""

from __future__ import annotations

import tempfile

import pytest

from jobs import own_cluster
from jobs.cluster import refuse_dead_address
from jobs.own_cluster import refuse_special_paths, temporary_folder


@pytest.fixture
def system_folder(monkeypatch):
    """Sets the temporary folder of the system."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)

    def choose(folder: str) -> None:
        monkeypatch.setattr(tempfile, "tempdir", folder)
    return choose


def test_ray_works_in_the_temporary_folder_of_the_system(system_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(own_cluster, "LONGEST_TEMPORARY_FOLDER", 200)
    system_folder(str(tmp_path))
    assert temporary_folder() == str(tmp_path)


@pytest.mark.parametrize("folder", ["/tmp/" + "x" * 40, "/tmp/two words"])
def test_a_long_or_special_temporary_folder_is_replaced_by_a_short_one(system_folder, folder):
    system_folder(folder)
    assert temporary_folder() == "/tmp"


def test_without_a_short_folder_the_variable_and_the_cure_are_named(system_folder, monkeypatch):
    system_folder("/tmp/" + "x" * 40)
    monkeypatch.setattr(own_cluster, "SHORT_TEMPORARY_FOLDERS", ("/nowhere",))
    with pytest.raises(ValueError, match=r"at most 36 bytes.*none of /nowhere can be written\. Set TMPDIR"):
        temporary_folder()


@pytest.mark.parametrize("path", ["/home/me/my project/.venv/bin/python", "/data/[new]/python", "/a&b/python",
                                  "/it's/python", "/c$d/python"])
def test_paths_that_a_shell_would_take_apart_are_refused(path):
    with pytest.raises(ValueError, match=r"the Python is /.*Move the clone"):
        refuse_special_paths({"the Python": path})


@pytest.mark.parametrize("path", ["/home/me/project-2_x.y/.venv/bin/python3.11", "/home/josé/a+b,c@d=e%f/python"])
def test_ordinary_paths_pass(path):
    refuse_special_paths({"the Python": path})


@pytest.mark.parametrize(("address", "reason"), [
    ("127.0.0.1:1", "Connection refused"), ("somewhere", "no Ray cluster answers at RAY_ADDRESS=somewhere"),
    ("http://127.0.0.1:8265", "an address for `ray job submit`"), ("ray://127.0.0.1:10001", "`ray job submit`")])
def test_an_address_without_a_cluster_is_named_with_the_cure(address, reason):
    with pytest.raises(ConnectionError, match=rf"RAY_ADDRESS={address}.*(?i:unset RAY_ADDRESS)") as raised:
        refuse_dead_address(address)
    assert reason in str(raised.value)
