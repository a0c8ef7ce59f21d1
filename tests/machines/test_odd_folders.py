"""Clones and runs in folders with odd names, behind links, and in clones that cannot be written."""

from __future__ import annotations

import shlex

import pytest

from tests.machines.verbs import CAN_MOUNT, HERE, content, copy_of_the_code, refuse_failure, start, verb

pytestmark = [pytest.mark.machines, pytest.mark.slow]

NAMES = {"a line break": "two\nlines", "brackets": "[x] (y) {z}", "a dash": "--recipe",
         "a shell's words": "a & b; $HOME 'c'", "a percent sign and a hash": "50%20 #1", "other letters": "café 東京"}


def from_clone(*settings: str) -> str:
    """A line that makes shards with the code of a clone, and shows first that it is that code."""
    line = verb("make_shards", *settings)
    python = shlex.split(line)[0]
    return f"{python} -c 'import jobs; print(jobs.__file__)' && {line}"


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_clone_with_an_odd_name_makes_the_same_shards(plain, tmp_path, name):
    clone = copy_of_the_code(tmp_path / name)
    result = start(from_clone(HERE, "folder=run"), folder=clone)
    refuse_failure(result)
    assert f"{name}/jobs/__init__.py" in result.stdout
    assert content(clone / "run") == plain


def test_a_clone_and_a_run_behind_links(plain, tmp_path):
    copy_of_the_code(tmp_path / "real clone")
    (tmp_path / "real runs").mkdir()
    (tmp_path / "clone").symlink_to("real clone")
    (tmp_path / "runs").symlink_to("real runs")
    refuse_failure(start(from_clone(HERE, "folder=../runs/run"), folder=tmp_path / "clone"))
    refuse_failure(start(verb("make_shards", HERE, f"folder={tmp_path / 'runs' / 'run'}")))
    assert content(tmp_path / "real runs" / "run") == plain


@pytest.mark.skipif(not CAN_MOUNT, reason="needs root and mount namespaces")
def test_a_clone_that_cannot_be_written_says_where_the_run_may_go(plain, tmp_path):
    clone = copy_of_the_code(tmp_path / "clone")
    read_only = f"mount --bind {clone} {clone} && mount -o remount,ro,bind {clone} && cd {clone} && ! touch x 2>&1"

    def in_clone(*settings: str):
        line = f"{read_only} && {from_clone(HERE, *settings)}"
        return start(f"unshare --mount bash -c {shlex.quote(line)}", folder=clone)

    refused = in_clone()
    assert refused.returncode == 1
    assert "Read-only file system" in refused.stderr
    assert refused.stderr.strip().endswith("To write elsewhere: --set folder=/another/folder")
    assert "Traceback" not in refused.stderr
    refuse_failure(in_clone(f"folder={tmp_path / 'run'}"))
    assert content(tmp_path / "run") == plain


@pytest.mark.ray
def test_ray_works_in_a_clone_and_a_run_with_all_of_it_in_their_names(plain, tmp_path):
    clone = copy_of_the_code(tmp_path / "-a [b]\n& 'c' %20")
    result = start(from_clone("cluster.local_cpus=2", "folder=a run; $HOME"), folder=clone)
    refuse_failure(result)
    assert content(clone / "a run; $HOME") == plain
