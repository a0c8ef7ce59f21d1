"""A folder is listed while others remove what is in it."""

from __future__ import annotations

import shutil

from pipeline.living_folders import paths_below


def test_everything_below_a_folder_is_listed(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.json").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert {str(path.relative_to(tmp_path)) for path in paths_below(tmp_path)} == {"a", "a/b", "a/b/c.json", "link"}
    assert list(paths_below(tmp_path / "none")) == []


def test_a_folder_that_is_removed_meanwhile_is_passed_over(tmp_path):
    for name in "abcd":
        (tmp_path / name / "deep").mkdir(parents=True)
    listed = paths_below(tmp_path)
    first = next(listed)
    for name in "abcd":
        shutil.rmtree(tmp_path / name)
    assert {path.name for path in [first, *listed]} == {*"abcd"}
