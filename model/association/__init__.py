"""Which object of a clip is which of the video. Either queries are aligned before clips are merged, or the segments of
merged clips are linked. The type of a config picks the way, here and nowhere else."""

from __future__ import annotations

from model.association.clip_wise import ClipWiseConfig, ClipWiseLinker
from model.association.hungarian import HungarianConfig
from model.association.linker import Linker
from model.association.memory_buffer import MemoryBuffer, MemoryBufferConfig, NaiveBufferConfig
from model.association.stitching import StitchingConfig, StitchingLinker

LinkerConfig = StitchingConfig | MemoryBufferConfig | NaiveBufferConfig | ClipWiseConfig
AssociationConfig = HungarianConfig | LinkerConfig


def build_linker(config: LinkerConfig) -> Linker:
    """The linker a config describes, for one video."""
    match config:
        case StitchingConfig():
            return StitchingLinker(config)
        case MemoryBufferConfig():
            return MemoryBuffer(config)
        case ClipWiseConfig():
            return ClipWiseLinker(config)
    raise ValueError(f"{type(config).__name__} links no segments; choose stitching, memory_buffer, naive_buffer or "
                     "clip_wise")
