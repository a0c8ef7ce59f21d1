"""The query cache: the output of a frozen segmenter for every clip, and the batches that stage two draws from it."""

from pipeline.query_cache.batches import QueryInputConfig, collate, query_batches
from pipeline.query_cache.cache import (
    BLOBS,
    CachedClip,
    CacheWriter,
    QueryCache,
    fingerprint,
    finish_cache,
    part_outcomes,
    part_path,
)
from pipeline.query_cache.evidence_recorder import EvidenceRecorder
from pipeline.query_cache.pixel_evidence import EvidenceConfig

__all__ = ["BLOBS", "CacheWriter", "CachedClip", "EvidenceConfig", "EvidenceRecorder", "QueryCache",
           "QueryInputConfig", "collate", "fingerprint", "finish_cache", "part_outcomes", "part_path",
           "query_batches"]
