"""The videos of a set by their ids, for those who need a few of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.shards.format import StoredVideo
from pipeline.shards.videos import StoredVideos


class VideosByName(Mapping[str, StoredVideo]):
    """Video id -> video. A `StoredVideo`, which holds the place of every frame, is made whenever it is asked for."""

    def __init__(self, videos: StoredVideos) -> None:
        self._videos = videos
        self._places = {video_id: place for place, video_id in enumerate(videos.ids())}

    def __getitem__(self, video_id: str) -> StoredVideo:
        return self._videos[self._places[video_id]]

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
