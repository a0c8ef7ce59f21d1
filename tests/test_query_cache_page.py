"""docs/query_cache.md is executed as it stands, in the folder of a cache of two views; its sizes are computed again."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from jobs.recipes import find_recipe
from pipeline.query_cache import QueryCache, bytes_of_clip
from tests.cached_run import cached, sharded_run

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "query_cache.md").read_text()
EXAMPLES = dict(re.findall(r'^```python title="(\w+)"\n(.*?)^```', PAGE, flags=re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> QueryCache:
    run = sharded_run(tmp_path_factory.mktemp("page") / "run")
    return cached(run, "cache.views=2", "cache.features_in_8_bits=true")


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
    assert explained == set(cache.file(0).schema_arrow.names)


def test_the_sizes_on_vipseg_are_those_of_the_official_recipe():
    recipe = find_recipe("vipseg_video_kmax_r50_near_online")
    rows = re.findall(r"^\| (\d+), (\d+) bits \|.* ([\d.]+) \| ([\d.]+) \|$", PAGE, flags=re.MULTILINE)
    assert (str(recipe.cache.evidence.pixels), "8") == rows[-1][:2]
    assert recipe.cache.features_in_8_bits
    clips = (66_767 + 2_806) // 2       # every video has an odd number of frames, at worst
    assert f"{clips:,} clips" in PAGE
    for pixels, bits, kilobytes, gigabytes in rows:
        size = bytes_of_clip(recipe.stage_one.segmenter.shapes, frames=2, pixels=int(pixels),
                             floats=np.dtype("float16"), in_8_bits=bits == "8")
        assert f"{size / 1000:.1f}" == kilobytes
        assert f"{size * clips / 1e9:.1f}" == gigabytes
    assert size * clips <= 6e9
