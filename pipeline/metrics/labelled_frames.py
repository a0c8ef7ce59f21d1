"""Scoring of sparsely labelled videos: what is predicted in frames that nobody labelled counts neither for nor against.

Maps need nothing for this: the truth of such a frame is void, which their metrics ignore. Masks of tracks have no void.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from model.contracts import Track, Tracks


def tracks_in(tracks: Tracks, frames: Collection[int]) -> Tracks:
    """The tracks with their masks in `frames` alone; a track that has none there is left out."""
    kept = (_in(track, frames) for track in tracks.tracks)
    return replace(tracks, tracks=tuple(track for track in kept if any(track.masks)))


def _in(track: Track, frames: Collection[int]) -> Track:
    return replace(track, masks=tuple(mask if index in frames else None for index, mask in enumerate(track.masks)))
