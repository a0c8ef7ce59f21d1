"""Which object of a clip is which of the video.

Either the queries of a clip are ordered before clips are merged (`HungarianConfig`, `LinksConfig`,
`QueryTrackingConfig`), or every clip is merged on its own and its segments are linked afterwards (the other configs,
whose `build` gives the linker of a video).
"""

from __future__ import annotations

from model.association.clip_wise import ClipWiseConfig
from model.association.hungarian import HungarianConfig
from model.association.links.config import LinksConfig
from model.association.memory_buffer import MemoryBufferConfig, NaiveBufferConfig
from model.association.query_tracking import QueryTrackingConfig
from model.association.stitching import StitchingConfig

LinkerConfig = StitchingConfig | MemoryBufferConfig | NaiveBufferConfig | ClipWiseConfig
AssociationConfig = HungarianConfig | LinksConfig | QueryTrackingConfig | LinkerConfig

__all__ = ["AssociationConfig", "ClipWiseConfig", "HungarianConfig", "LinkerConfig", "LinksConfig",
           "MemoryBufferConfig", "NaiveBufferConfig", "QueryTrackingConfig", "StitchingConfig"]
