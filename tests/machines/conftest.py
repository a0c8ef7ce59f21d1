"""What a verb makes in plain surroundings, to compare with."""

from __future__ import annotations

import pytest

from jobs import make_shards
from tests.machines.verbs import content
from tests.runs import here, tiny_run


@pytest.fixture(scope="session")
def plain(tmp_path_factory) -> dict[str, str]:
    """The digest of every shard of the recipe `tiny`."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    make_shards.main(here(tiny_run(folder)))
    return content(folder)
