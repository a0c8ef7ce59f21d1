"""A few hundred changed jsons for every reader; `python -m tests.own_data.fuzz` runs 20,000."""

from __future__ import annotations

import pytest

from tests.own_data.fuzz import MEGABYTES, READERS, fuzz


@pytest.mark.parametrize("name", READERS)
def test_whatever_a_json_holds_only_named_errors_are_raised_and_memory_is_bounded(tmp_path, name):
    assert fuzz(READERS[name], 100, tmp_path / "world") < MEGABYTES
