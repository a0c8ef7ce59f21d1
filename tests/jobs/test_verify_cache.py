"""The verbs that look at a query cache: what they print, their exit codes, and that findings name file and cure."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from jobs import inspect_cache, verify_cache
from jobs.cache_queries import CacheShard, cache_folder, for_validation
from jobs.models import read_card
from jobs.recipes.schema import Recipe, ValidationConfig
from jobs.verb import guarded
from pipeline.files import sha256_of
from pipeline.query_cache import part_path
from tests.cached_run import cached, sharded_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Recipe:
    """The recipe `tiny` with a cache of two views."""
    run = sharded_run(tmp_path_factory.mktemp("finished") / "run")
    run = replace(run, cache=replace(run.cache, views=2))
    cached(run)
    return run


@pytest.fixture
def run(finished, tmp_path) -> Recipe:
    """A copy of it that a test may damage."""
    shutil.copytree(finished.run_folder, tmp_path / "run")
    return replace(finished, folder=str(tmp_path / "run"))


def test_a_sound_cache_has_no_findings(finished, capsys):
    assert guarded(verify_cache.main, lambda: finished) == 0
    printed = capsys.readouterr().out
    assert f"{cache_folder(finished)}: 0 findings" in printed
    assert json.loads(printed.splitlines()[-1])["findings"] == 0


def test_damage_is_a_data_error_and_the_cure_mends_it(run, capsys):
    path = part_path(cache_folder(run), 1, 1)
    content = path.read_bytes()
    path.write_bytes(content[:-100] + bytes(100))
    assert guarded(verify_cache.main, lambda: run) == 3
    printed = capsys.readouterr()
    assert f"{path}: its sha256 differs from that in the manifest. Delete it and run jobs.cache_queries" in printed.out
    assert "findings, listed above" in printed.err
    path.unlink()
    CacheShard(recipe=run)(split="train", shard=1, part=1)
    assert path.read_bytes() == content
    assert guarded(verify_cache.main, lambda: run) == 0


def test_the_cache_for_scores_is_verified_too(run, capsys):
    run = replace(run, stage_two=replace(run.stage_two, validation=ValidationConfig(pixels=32)))
    assert guarded(verify_cache.main, lambda: run) == 4     # the only cache that is there is another one
    assert "jobs.cache_queries" in capsys.readouterr().err
    scored = for_validation(run)
    cached(scored)
    assert guarded(verify_cache.main, lambda: run) == 0
    assert f"{cache_folder(scored)}: 0 findings" in capsys.readouterr().out
    part = part_path(cache_folder(scored), 0)
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert guarded(verify_cache.main, lambda: run) == 3
    printed = capsys.readouterr()
    assert f"{cache_folder(run)}: 0 findings" in printed.out
    assert str(cache_folder(scored)) in printed.err


def test_a_cache_of_other_shards_is_a_finding(run, capsys):
    manifest = run.shards_of("train") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"split":"train"', '"split": "train"'))
    assert guarded(verify_cache.main, lambda: run) == 3
    assert "shards: the cache has" in capsys.readouterr().out


def test_a_cache_of_another_segmenter_has_an_exit_code_of_its_own(run, capsys):
    card = read_card(run.segmenter_folder)
    weights = run.segmenter_folder / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, weights)
    other = sha256_of(weights)
    (run.segmenter_folder / "model.json").write_text(json.dumps({**card, "weights_sha256": other}))
    assert guarded(verify_cache.main, lambda: run) == 4
    assert f"segmenter: the cache has '{card['weights_sha256']}', expected '{other}'" in capsys.readouterr().err


def test_without_a_cache_the_verb_that_makes_it_is_named(run, capsys):
    shutil.rmtree(cache_folder(run))
    for verb in (verify_cache, inspect_cache):
        assert guarded(verb.main, lambda: run) == 2
        assert "run jobs.cache_queries" in capsys.readouterr().err


def test_without_shards_the_rest_is_verified(run, capsys):
    shutil.rmtree(run.run_folder / "shards")
    assert guarded(verify_cache.main, lambda: run) == 0
    assert "not looked at: the shards" in capsys.readouterr().out


def test_inspecting_shows_columns_views_and_source(finished, capsys):
    assert guarded(inspect_cache.main, lambda: finished) == 0
    *lines, summary = capsys.readouterr().out.splitlines()
    values = json.loads(summary)
    assert (values["videos"], values["views"]) == (4, 2)
    assert values["bytes"] == sum(path.stat().st_size for path in cache_folder(finished).glob("*.parquet"))
    shown = {line.split()[0]: line for line in reversed(lines) if line}
    assert "float16" in shown["queries"]
    assert shown["all"].split()[-1] == "100.0%"
    assert "view 0: 4, view 1: 4" in shown["videos:"]
    assert read_card(finished.segmenter_folder)["weights_sha256"] in shown["segmenter:"]
