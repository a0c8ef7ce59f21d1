"""docs/query_cache.md is executed as it stands, in the folder of a cache of two views."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.query_cache import QueryCache
from tests.cached_run import cached, sharded_run

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "query_cache.md").read_text()
EXAMPLES = dict(re.findall(r"^```python (\w+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> QueryCache:
    return cached(sharded_run(tmp_path_factory.mktemp("page") / "run"), "cache.views=2")


def test_every_tool_that_the_page_names_has_an_example():
    assert list(EXAMPLES) == ["duckdb", "polars", "pandas", "ray"]


@pytest.mark.parametrize("tool", ["duckdb", "polars", "pandas", pytest.param("ray", marks=pytest.mark.ray)])
def test_an_example_runs_and_prints_what_is_in_the_cache(tool, cache, monkeypatch, capsys, request):
    pytest.importorskip(tool)
    if tool == "ray":
        request.getfixturevalue("cluster")
    monkeypatch.chdir(cache.folder)
    exec(EXAMPLES[tool], {})
    printed = capsys.readouterr().out
    n, c = cache.read(0)[0].queries.shape
    expected = {"duckdb": "objects", "polars": "tube_areas", "pandas": f"{n}, {c})", "ray": f", {n}, {c})"}
    assert expected[tool] in printed
    assert tool == "pandas" or "train_0000" in printed


def test_every_column_of_the_cache_is_explained(cache):
    table = PAGE.split("## What is in it")[1].split("## Reading")[0]
    explained = {name for row in re.findall(r"^\| (`.+?) \|", table, flags=re.MULTILINE)
                 for name in re.findall(r"`(\w+)`", row)}
    assert explained == set(next(iter(cache.files.values())).schema_arrow.names)
