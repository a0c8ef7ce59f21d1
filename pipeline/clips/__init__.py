"""Videos as clips: which frames form a clip, and how they become network input."""

from pipeline.clips.augment import AugmentConfig, Transform, color_frames, draw_color, draw_transform
from pipeline.clips.reading import (
    FolderSource,
    StoredVideoSource,
    VideoClip,
    VideoSource,
    ahead,
    pictures_in,
    streamed_clips,
    video_clips,
)
from pipeline.clips.sampling import (
    count_windows,
    neighbours,
    sample_around,
    sample_clip,
    split_clips,
    starts_with_labels,
)

__all__ = ["AugmentConfig", "FolderSource", "StoredVideoSource", "Transform", "VideoClip", "VideoSource",
           "ahead", "color_frames", "count_windows", "draw_color", "draw_transform", "neighbours", "pictures_in",
           "sample_around", "sample_clip", "split_clips", "starts_with_labels", "streamed_clips", "video_clips"]
