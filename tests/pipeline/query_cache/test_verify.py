"""Verifying a query cache finds no fault in what was written, and names file, place and cure of every kind of fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.files import sha256_of
from pipeline.foreign_files import own_json
from pipeline.query_cache import CacheWriter, fingerprint, finish_cache, verify_cache
from pipeline.query_cache.verify import faults_of
from tests.pipeline.query_cache.cache_files import as_earlier_version, change_views
from tests.pipeline.query_cache.test_cache import SOURCE, M, clip

PART = "queries-000001.parquet"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A cache of two parts: two videos in the first, one in the second."""
    parts = []
    for shard, videos in enumerate(("ab", "c")):
        writer = CacheWriter(tmp_path, shard, dtype="float16", fingerprint=fingerprint(SOURCE))
        for video in videos:
            writer.add([clip(video, index) for index in range(3)])
        parts.append(writer.close())
    finish_cache(tmp_path, SOURCE, parts)
    return tmp_path


def change_manifest(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "manifest.json"
    manifest = own_json(path, cure="")
    change(manifest)
    path.write_text(json.dumps(manifest))


def rewrite(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the rows of a part and list it as it is now, as a faulty writer would have left it."""
    path = folder / PART
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path, compression="none")

    def relist(manifest: dict) -> None:
        manifest["parts"][1] |= {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        manifest["totals"]["bytes"] = sum(part["bytes"] for part in manifest["parts"])

    change_manifest(folder, relist)


def rewritten_with(folder: Path, **values) -> None:
    """The second part with other values in each of its clips, whose checksums fit."""
    writer = CacheWriter(folder / "other", 1, dtype="float16", fingerprint=fingerprint(SOURCE))
    writer.add([replace(clip("c", index), **values) for index in range(3)])
    summary = writer.close()
    writer.path.replace(folder / PART)

    def relist(manifest: dict) -> None:
        manifest["parts"][1] |= {name: summary[name] for name in ("bytes", "sha256")}
        manifest["totals"]["bytes"] = sum(part["bytes"] for part in manifest["parts"])

    change_manifest(folder, relist)


def test_a_sound_cache_has_no_findings(folder):
    assert verify_cache(folder, expected=SOURCE) == []


def test_a_cache_of_another_segmenter_is_a_finding_that_names_both(folder):
    [finding] = verify_cache(folder, expected={**SOURCE, "segmenter": "xyz"})
    assert "segmenter: the cache has 'abc', expected 'xyz'" in finding


def test_without_a_manifest_the_verb_is_named(folder):
    (folder / "manifest.json").unlink()
    [finding] = verify_cache(folder)
    assert "manifest.json: the file is missing; run jobs.cache_queries again" in finding


@pytest.mark.parametrize(("change", "expected"), [
    (lambda m: m.update(schema=99), "has schema 99, but this version reads"),
    (lambda m: m.pop("parts"), "the manifest lacks parts"),
    (lambda m: m["parts"][1].update(file="../x"), "which is no file in its folder"),
    (lambda m: m["made_from"].update(segmenter="xyz"), "is not that of what it was made from"),
    (lambda m: m["totals"].update(clips=8), "the clips of all parts sum to 9, but its totals list 8"),
    (lambda m: m["parts"][1].update(fingerprint="f" * 64), "a part of another cache"),
    (lambda m: m["parts"].pop(1), f"{PART}: it is not in the manifest"),
    (lambda m: m["totals"].pop("clips"), "KeyError('clips') comes from a field that is missing"),
])
def test_a_manifest_that_differs_from_the_parts_is_found(folder, change, expected):
    change_manifest(folder, change)
    findings = verify_cache(folder)
    assert any(expected in finding for finding in findings), findings
    assert all(str(folder) in finding for finding in findings)


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize(("change", "expected"), [
    (lambda rows: rows[2].update(clips=2), "it has 3 clips, but the manifest lists 2"),
    (lambda rows: rows[2].update(video="d"), "it holds rows of [('c', 0)]"),
    (lambda rows: rows[2].update(video="a"), "view 0 of video 'a' is listed 2 times"),
    (lambda rows: rows.append({**rows[2], "video": "d", "group": 1}), "1 row groups, but the manifest lists 2 views"),
])
def test_views_that_differ_from_the_parts_are_found(folder, earlier, change, expected):
    change_views(folder, change)
    if earlier:
        as_earlier_version(folder)
    findings = verify_cache(folder)
    assert any(expected in finding for finding in findings), findings
    assert all(str(folder) in finding for finding in findings)


def test_a_sound_cache_of_an_earlier_version_has_no_findings(folder):
    as_earlier_version(folder)
    assert verify_cache(folder, expected=SOURCE) == []


def test_a_damaged_table_of_views_is_found(folder):
    path = folder / "views.arrow"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    [finding] = verify_cache(folder)
    assert finding.startswith(f"{path}: its checksum")
    assert "Run jobs.cache_queries again" in finding


def test_a_damaged_manifest_is_found(folder):
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:40])
    [finding] = verify_cache(folder)
    assert finding.startswith(f"{path}: it cannot be read")


@pytest.mark.parametrize(("damage", "expected"), [
    (Path.unlink, "the file is missing. Run jobs.cache_queries again"),
    (lambda path: path.write_bytes(path.read_bytes()[:-40]), "bytes, but the manifest lists"),
    (lambda path: path.write_bytes(path.read_bytes().replace(clip("c", 2).queries.tobytes(), bytes(80))),
     "its sha256 differs from that in the manifest. Delete it and run jobs.cache_queries again"),
    (lambda path: path.write_bytes(bytes(path.stat().st_size)), "it is no part of a query cache that can be read"),
])
def test_damage_of_a_part_is_found_and_the_other_part_is_sound(folder, damage, expected):
    damage(folder / PART)
    findings = verify_cache(folder)
    assert any(expected in finding for finding in findings), findings
    assert all(PART in finding for finding in findings)


def test_a_flipped_byte_is_found_in_its_clip(folder):
    path = folder / PART
    content = path.read_bytes()
    path.write_bytes(content.replace(clip("c", 2).queries.tobytes(), bytes(80)))
    assert any("row group 0, view 0 of video 'c'" in finding for finding in verify_cache(folder))


def without(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns([name])


def with_rows(order: list[int]) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.take(order)


def with_column(name: str, values: list, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.schema.get_field_index(name), name, pa.array(values, kind))


@pytest.mark.parametrize(("change", "expected"), [
    (without("queries"), "the column 'queries' is missing"),
    (without("tube_ids"), "the column 'tube_ids' is missing"),
    (without("crc32"), "the column 'crc32' is missing"),
    (with_rows([0, 2, 1]), "its clips have the numbers [0, 2, 1]"),
    (with_column("start_frame", [0, 2, 5], pa.int32()), "its clips do not follow each other"),
    (with_column("crc32", [1, 2, 3], pa.uint32()), "clip 0 does not match its checksum"),
    (with_column("queries", [b"abcd"] * 3, pa.binary(4)), "needs fixed_size_binary[80]"),
])
def test_rows_that_a_faulty_writer_left_are_found(folder, change, expected):
    rewrite(folder, change)
    findings = verify_cache(folder)
    assert any(expected in finding for finding in findings), findings
    assert all(PART in finding and "jobs.cache_queries again" in finding for finding in findings)


@pytest.mark.parametrize(("values", "expected"), [
    ({"tube_ids": np.zeros(M, np.int64)}, "two of its tubes have the same track"),
    ({"tube_classes": np.zeros(M - 1, np.int32)}, f"it has {M} tubes, but {M - 1} classes and {M} areas of them"),
    ({"tube_areas": np.array([-1, 1, 1])}, "a tube has the area -1"),
    ({"pixel_tubes": np.full(6, M, np.int32)}, f"its pixels lie in tubes from {M} to {M}"),
    ({"pixel_tubes": np.full(6, -2, np.int32)}, "its pixels lie in tubes from -2 to -2"),
    ({"pixel_weights": np.full(6, -3, np.float32)}, "a pixel has the weight -3.0"),
    ({"tube_overlaps": ((0, M),)}, f"name tubes outside of its {M}"),
    ({"num_frames": 0}, "has 0 frames"),
    ({"queries": np.zeros((5, 9))}, "'queries' is <f2 with [5, 9], but <f2 with [5, 8] in the parts before"),
])
def test_values_that_no_segmenter_gives_are_found(folder, values, expected):
    rewritten_with(folder, **values)
    findings = verify_cache(folder)
    assert any(expected in finding for finding in findings), findings


@pytest.mark.parametrize("name", ["queries", "pixel_features", "pixel_weights", "places"])
def test_values_that_are_not_finite_are_counted(name):
    sound = replace(clip("c", 0), places=np.zeros((5, 2, 5), np.float16))
    assert list(faults_of(sound)) == []
    values = getattr(sound, name).copy()
    values[:2].flat[::3] = np.nan
    count = np.isnan(values).sum()
    assert count > 0
    assert list(faults_of(replace(sound, **{name: values}))) == [f"{name} holds {count} values that are not finite."]
