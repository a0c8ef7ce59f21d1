"""The cache returns whole videos as they were written, in order, and refuses parts that are damaged or unexpected."""

from __future__ import annotations

import json
import pickle
import re
import tempfile
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import digests
from pipeline.errors import BadInput, Mismatch
from pipeline.query_cache.batches import QueryInputConfig, collate, query_batches
from pipeline.query_cache.cache import (
    CachedClip,
    CacheWriter,
    QueryCache,
    fingerprint,
    finish_cache,
    part_outcomes,
    part_path,
)
from tests.pipeline.query_cache.cache_files import as_earlier_version
from tests.storm.small_disk import disk_of

SOURCE = {"segmenter": "abc", "clip_frames": 2}
N = 5
C = 8
D = 4
P = 6
M = 3
CLASSES = 2


def clip(video: str, index: int, *, view: int = 0, rng=None) -> CachedClip:
    rng = rng or np.random.default_rng([index, view, *video.encode()])
    floats = lambda *shape: rng.standard_normal(shape).astype(np.float16)    # noqa: E731
    return CachedClip(
        video_id=video, view=view, clip_index=index, start_frame=2 * index, num_frames=2, height=33, width=65,
        queries=floats(N, C), mask_embeddings=floats(N, D), class_logits=floats(N, CLASSES + 1),
        pixel_features=floats(P, D), pixel_positions=rng.integers(0, 9, (P, 3)).astype(np.int16),
        pixel_tubes=rng.integers(-1, M, P).astype(np.int32), pixel_weights=rng.random(P).astype(np.float32),
        tube_ids=np.arange(M), tube_classes=np.array([0, 1, 1], np.int32),
        tube_areas=np.array([4, 0 if index == 0 else 3, 0], np.int32))


def write(folder, videos: dict[str, int], *, shard: int = 0, views: int = 1, dtype: str = "float16") -> dict:
    writer = CacheWriter(folder, shard, dtype=dtype, fingerprint=fingerprint(SOURCE))
    for video, clips in videos.items():
        for view in range(views):
            writer.add([clip(video, k, view=view) for k in range(clips)])
    return writer.close()


@pytest.fixture
def cache(tmp_path):
    finish_cache(tmp_path, SOURCE, [write(tmp_path, {"b": 3, "a": 1}, views=2), write(tmp_path, {"c": 4}, shard=1),
                                    write(tmp_path, {}, shard=2)])
    return QueryCache(tmp_path, expected=SOURCE)


def same(a: CachedClip, b: CachedClip) -> bool:
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in CachedClip.__slots__
                 if name != "tube_overlaps")
    return arrays and a.tube_overlaps == b.tube_overlaps


def test_reading_returns_the_written_clips(cache):
    for group, (video, view, _, _, clips) in enumerate(cache.groups):
        rows = cache.read(group)
        assert len(rows) == clips
        for index, row in enumerate(rows):
            assert same(row, clip(video, index, view=view))
            assert row.queries.dtype == np.float16


def test_videos_are_listed_with_their_views_and_no_video_spans_parts(cache):
    assert {v: len(groups) for v, groups in cache.videos.items()} == {"a": 2, "b": 2, "c": 1}
    assert cache.manifest["totals"]["clips"] == 2 * 4 + 4


def test_a_pickled_cache_reads_the_same(cache):
    cache.read(0)
    assert same(pickle.loads(pickle.dumps(cache)).read(0)[0], cache.read(0)[0])


def test_ordinary_tools_can_read_the_parquet(cache):
    table = pq.read_table(part_path(cache.folder, 1))
    assert table.num_rows == 4
    shape = json.loads(table.schema.metadata[b"tensors"])["queries"]
    assert np.frombuffer(table["queries"][2].as_py(), shape[0]).shape == (N * C,)


def test_writing_twice_gives_the_same_bytes_and_a_finished_part_is_recognised(tmp_path):
    first = write(tmp_path / "a", {"x": 2})
    second = write(tmp_path / "b", {"x": 2})
    assert first == second
    assert CacheWriter(tmp_path / "a", 0, dtype="float16", fingerprint=fingerprint(SOURCE)).finished() is not None
    assert CacheWriter(tmp_path / "a", 0, dtype="float16", fingerprint="another").finished() is None


def test_a_part_that_another_cache_of_the_run_holds_is_linked_and_a_damaged_one_is_not(tmp_path):
    def written(view: int, folder: str) -> dict | None:
        return CacheWriter(tmp_path / folder, 0, view=view, dtype="float16", fingerprint=f"view {view}").finished()

    writer = CacheWriter(tmp_path / "small", 0, view=1, dtype="float16", fingerprint="view 1")
    writer.add([clip("x", 0, view=1)])
    summary = writer.close()
    path = part_path(tmp_path / "small", 0, 1)
    assert written(2, "large") is None
    assert written(1, "large") == json.loads(json.dumps(summary))
    linked = part_path(tmp_path / "large", 0, 1)
    assert linked.stat().st_ino == path.stat().st_ino
    assert linked.with_suffix(".json").read_bytes() == path.with_suffix(".json").read_bytes()
    whole = path.read_bytes()
    path.write_bytes(whole[:-60] + bytes(60))
    assert written(1, "third") is None


def test_a_video_is_skipped_if_any_view_of_it_is():
    skipped = {"video": "b", "reason": "too-many-tubes", "message": "the second view"}
    parts = [{"groups": [("a", 0, 2), ("b", 0, 2)], "skipped": []},
             {"groups": [("a", 1, 2)], "skipped": [skipped]},
             {"groups": [("a", 2, 2)], "skipped": [{**skipped, "message": "the third"}]}]
    assert [outcome.to_json() for outcome in part_outcomes(parts)] == [{"video": "a", "frames": 0}, skipped]


def test_an_unfinished_cache_names_the_verb(tmp_path):
    write(tmp_path, {"x": 2})
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/manifest\.json is missing; run jobs\.cache_queries"):
        QueryCache(tmp_path)


def test_a_cache_of_another_segmenter_is_refused_by_field(cache):
    with pytest.raises(ValueError, match=r"segmenter: the cache has 'abc', expected 'xyz'"):
        QueryCache(cache.folder, expected={"segmenter": "xyz"})


def test_a_cut_part_and_a_flipped_byte_are_found(cache):
    path = part_path(cache.folder, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    with pytest.raises(BadInput, match="bytes expected"):
        QueryCache(cache.folder)
    blob = clip("c", 2).queries.tobytes()
    at = whole.index(blob)
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
    damaged = QueryCache(cache.folder)
    with pytest.raises(BadInput, match="checksum"):
        damaged.read(damaged.videos["c"][0])


@pytest.mark.parametrize("value", [1e6, float("nan")])
def test_a_value_that_the_cache_cannot_hold_is_refused_with_the_cure(tmp_path, value):
    bad = replace(clip("x", 0), queries=np.full((N, C), value, np.float32))
    writer = CacheWriter(tmp_path, 0, dtype="float16", fingerprint="f")
    with pytest.raises(BadInput, match=r"cache\.dtype=float32"):
        writer.add([bad])
    writer.abandon()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_names_the_part_and_leaves_nothing(tmp_path):
    writer = CacheWriter(tmp_path, 0, dtype="float16", fingerprint="f")
    with disk_of(3000), pytest.raises(OSError, match=re.escape(str(part_path(tmp_path, 0)))):
        writer.add([clip("x", index) for index in range(100)])
    writer.abandon()
    assert not list(tmp_path.iterdir())


def test_overlaps_are_read_back_and_refer_to_the_tubes_of_a_window(tmp_path):
    table = ((0, 2), (0, 1), (0, 1, 2))
    shared = np.array([-1, 0, -2, -3, -4, 1], np.int32)
    written = [replace(clip("x", 0), tube_overlaps=table),
               replace(clip("x", 1), tube_overlaps=table, pixel_tubes=shared, tube_areas=np.array([9, 5, 4], np.int32)),
               replace(clip("x", 2), tube_overlaps=table, pixel_tubes=np.minimum(shared, -1))]
    writer = CacheWriter(tmp_path, 0, dtype="float16", fingerprint=fingerprint(SOURCE))
    writer.add(written)
    finish_cache(tmp_path, SOURCE, [writer.close()])
    read = QueryCache(tmp_path).read(0)
    assert all(same(one, other) for one, other in zip(read, written))
    batch = collate([read, [clip("y", 1)] * 3], (0, 1))
    assert batch.evidence.overlaps[0].tolist() == [[True, False, True], [True, True, False], [True, True, True]]
    assert batch.evidence.overlaps[1].shape == (0, 2)
    assert np.array_equal(batch.evidence.tubes[0, 1], shared)
    short = collate([[replace(read[2], tube_areas=np.array([0, 4, 4], np.int32))]], (0,)).evidence
    assert short.overlaps[0].tolist() == [[False, True], [True, False], [True, True]]
    assert np.array_equal(short.tubes[0, 0], np.minimum(shared, -1))


def test_a_window_has_only_its_visible_tubes_and_repeats_have_no_weight():
    shown = [clip("x", 0), clip("x", 1)]
    batch = collate([[*shown, None]], (0,))
    assert batch.queries.queries.shape == (1, 3, N, C)
    assert batch.evidence.classes[0].tolist() == [0, 1]                 # the third tube has no pixel
    assert batch.evidence.areas[0].tolist() == [[4, 0], [4, 3], [0, 0]]
    assert batch.evidence.weights[0, 2].abs().sum() == 0
    tubes = np.stack([c.pixel_tubes for c in shown])
    assert np.array_equal(batch.evidence.tubes[0, :2].numpy(), np.where(tubes == 2, -1, tubes))


def test_two_ranks_get_the_batches_of_one_and_a_resume_continues_them(cache):
    config = QueryInputConfig(clips=2, batch_size=2, samples_per_video=2)

    def videos(steps, **kwargs):
        stream = query_batches(cache, config, **kwargs)
        return [next(stream) for _ in range(steps)]

    whole = videos(6)
    halves = list(zip(videos(6, rank=0, world=2), videos(6, rank=1, world=2)))
    assert [b.videos for b in whole] == [a.videos + b.videos for a, b in halves]
    resumed = videos(2, consumed=4 * config.batch_size)
    for a, b in zip(whole[4:], resumed):
        assert a.videos == b.videos
        assert np.array_equal(a.queries.queries, b.queries.queries)


def other_part_in(folder, *, shard: int = 1):
    """Put a part of another segmenter's cache, of the same size, in the place of one; returns its path."""
    other = CacheWriter(folder / "other", shard, dtype="float16", fingerprint=fingerprint({**SOURCE, "segmenter": "x"}))
    other.add([clip("c", k) for k in range(4)])
    other.close()
    path = part_path(folder, shard)
    assert other.path.stat().st_size == path.stat().st_size
    other.path.replace(path)
    return path


def test_a_part_of_another_cache_of_the_same_size_is_refused_when_opened(cache):
    path = other_part_in(cache.folder)
    ours, theirs = (fingerprint({**SOURCE, "segmenter": name})[:12] for name in ("abc", "x"))
    with pytest.raises(Mismatch, match=rf"{re.escape(str(path))}.*{theirs}.*{ours}.*jobs\.cache_queries again"):
        QueryCache(cache.folder)


def test_a_part_of_another_cache_is_made_again_and_the_others_are_kept(tmp_path):
    folder = tmp_path / "run" / "cache"         # without other caches beside it, to which parts could be linked

    def writer(shard: int) -> CacheWriter:
        return CacheWriter(folder, shard, dtype="float16", fingerprint=fingerprint(SOURCE))

    write(folder, {"b": 3})
    write(folder, {"c": 4}, shard=1)
    other_part_in(folder)
    assert writer(0).finished() is not None
    assert writer(1).finished() is None


def test_a_cache_of_an_earlier_version_is_read_and_its_parts_have_their_sha256(cache):
    manifest = as_earlier_version(cache.folder)
    for part in manifest["parts"]:
        del part["fingerprint"]
    (cache.folder / "manifest.json").write_text(json.dumps(manifest))
    earlier = QueryCache(cache.folder)
    assert len(earlier.read(0)) == 1
    assert list(earlier.groups) == list(cache.groups)
    assert earlier.groups.frames.tolist() == cache.groups.frames.tolist() == [2, 2, 6, 6, 8]
    assert earlier.groups.full.tolist() == cache.groups.full.tolist() == [1, 1, 3, 3, 4]
    path = other_part_in(cache.folder)
    with pytest.raises(BadInput, match=rf"{re.escape(str(path))}: the checksum.*sha256.*but the manifest lists"):
        QueryCache(cache.folder).read(0)


def test_a_damaged_table_of_views_is_named(cache):
    path = cache.folder / "views.arrow"
    whole = path.read_bytes()
    for damage in (whole[:-1], whole[:-1] + b"x", b"", bytes(len(whole))):
        path.write_bytes(damage)
        with pytest.raises(BadInput, match=rf"{re.escape(str(path))}.*Run jobs\.cache_queries again"):
            QueryCache(cache.folder)
    path.unlink()
    with pytest.raises(BadInput, match=rf"{re.escape(str(path))}.*Run jobs\.cache_queries again"):
        QueryCache(cache.folder)


def test_parts_whose_bytes_are_known_are_opened_without_reading_them(cache, monkeypatch, tmp_path_factory):
    monkeypatch.setattr(digests, "_memory", digests._Memory())
    monkeypatch.setattr(digests, "SETTLED", -1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    QueryCache(cache.folder).refuse_damage()
    monkeypatch.setattr("pipeline.query_cache.cache.stored_fingerprint", lambda path: pytest.fail(f"{path} was read"))
    monkeypatch.setattr(digests, "sha256_of", lambda path: pytest.fail(f"{path} was read"))
    monkeypatch.setattr(digests, "_memory", digests._Memory())      # as in another process
    assert len(QueryCache(cache.folder).read(0)) == 1


def test_few_parts_are_open_at_a_time(cache, monkeypatch):
    monkeypatch.setattr("pipeline.query_cache.cache.MOST_OPEN", 1)
    for group, (video, view, *_) in list(enumerate(cache.groups)) * 2:
        assert same(cache.read(group)[0], clip(video, 0, view=view))
        assert len(cache._open) == 1


def test_a_pickled_cache_is_its_path_and_refuses_another_cache_there(cache):
    pickled = pickle.dumps(cache)
    assert len(pickled) < 500
    other = {**SOURCE, "segmenter": "x"}
    finish_cache(cache.folder, other, [])
    with pytest.raises(Mismatch, match=r"was made again\. Run the same command again"):
        pickle.loads(pickled)


def test_every_part_is_compared_before_training(cache):
    cache.refuse_damage()
    path = part_path(cache.folder, 1)
    whole = path.read_bytes()
    at = whole.index(clip("c", 2).queries.tobytes())
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
    with pytest.raises(BadInput, match="sha256"):
        QueryCache(cache.folder).refuse_damage()


def test_two_writers_of_a_part_have_files_of_their_own(tmp_path):
    first, second = (CacheWriter(tmp_path, 0, dtype="float16", fingerprint="f") for _ in range(2))
    for index in range(2):
        for writer in (first, second):
            writer.add([clip(f"v{index}", 0)])
    assert first.close() == second.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["queries-000000.json", "queries-000000.parquet"]
    assert CacheWriter(tmp_path, 0, dtype="float16", fingerprint="f").finished() is not None
