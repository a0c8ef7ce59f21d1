"""The query cache: the output of a frozen segmenter for every clip, and the batches that stage two draws from it."""

from pipeline.query_cache.batches import QueryInputConfig, collate, drawn_videos, query_batches
from pipeline.query_cache.cache import (
    CacheWriter,
    QueryCache,
    fingerprint,
    finish_cache,
    part_outcomes,
    part_path,
    refuse_missing_columns,
    stored_shapes,
    stored_summaries,
)
from pipeline.query_cache.columns import (
    BLOBS,
    SEEN,
    CachedClip,
    bytes_of_clip,
    schema_of,
    to_clip,
    to_row,
)
from pipeline.query_cache.contents import Contents, contents
from pipeline.query_cache.evidence_recorder import EvidenceRecorder, crowded_videos
from pipeline.query_cache.pixel_evidence import EvidenceConfig
from pipeline.query_cache.sampled_video import SampledVideo, sampled_videos
from pipeline.query_cache.verify import verify_cache
from pipeline.query_cache.view_table import ViewTable
from pipeline.query_cache.views import PlainReader, ViewClip, ViewConfig, ViewReader, draw_view

__all__ = ["BLOBS", "CacheWriter", "CachedClip", "Contents", "EvidenceConfig", "EvidenceRecorder", "PlainReader",
           "QueryCache", "QueryInputConfig", "SEEN", "SampledVideo", "ViewClip", "ViewConfig", "ViewReader",
           "ViewTable", "bytes_of_clip", "collate", "contents", "crowded_videos", "draw_view", "drawn_videos",
           "fingerprint", "finish_cache", "part_outcomes", "part_path", "query_batches", "refuse_missing_columns",
           "sampled_videos", "schema_of", "stored_shapes", "stored_summaries", "to_clip", "to_row", "verify_cache"]
