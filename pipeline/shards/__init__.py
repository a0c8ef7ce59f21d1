"""Shards: planning, writing, reading and verifying. No other folder opens a shard."""

from pipeline.shards.allowed import refuse_unlike_classes
from pipeline.shards.by_name import VideosByName
from pipeline.shards.class_counts import class_table
from pipeline.shards.finish import ShardReport
from pipeline.shards.format import StoredFrame, StoredVideo
from pipeline.shards.index import write_index
from pipeline.shards.make import made_together, make_shards
from pipeline.shards.manifest import read_manifest
from pipeline.shards.plan import ShardConfig, ShardPlan, plan_shards
from pipeline.shards.reader import ShardSet
from pipeline.shards.verify import verify
from pipeline.shards.videos import StoredVideos

__all__ = ["ShardConfig", "ShardPlan", "ShardReport", "ShardSet", "StoredFrame", "StoredVideo", "StoredVideos",
           "VideosByName", "class_table", "made_together", "make_shards", "plan_shards", "read_manifest",
           "refuse_unlike_classes", "verify", "write_index"]
