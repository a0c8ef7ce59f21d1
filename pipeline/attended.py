"""What the parts of a system attend to around one point of a video: cells of its clip, other clips, linked queries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.association.links import link_order, reordered_video
from model.contracts import ClipPrediction, VideoQueries
from model.inference.alignment import ByAlignment
from model.inference.offline import QueryCollector
from pipeline.clips import VideoClip, VideoSource
from pipeline.system import System, in_single_precision
from pipeline.visualise.trajectory import Track, strides_of, track_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Attended:
    """What is attended to from one point. Queries are those of their clip, in the segmenter's order."""

    clip: int                           # which clip of the video shows the point
    first_frame: int                    # of that clip, in the video
    query: int                          # whose mask is strongest at the point
    track: Track | None                 # None: the segmenter has no trajectory attention
    clips: list[float] | None           # k: attention of the query to each clip, in the last layer of the head
    links: list[float] | None           # k: highest probability that a query of each clip is the same object


def attended(system: System, source: VideoSource, *, point: tuple[float, float], frame: int, stride: int | None = None
             ) -> Attended:
    """Run a system on a video and keep its maps. point: x, y in pixels of the source; frame: of the video.

    stride: of the map in which the point is followed; None: the finest. Raises ValueError for a frame, a point or a
    stride that is not there.
    """
    if not 0 <= frame < len(source.frame_names):
        raise ValueError(f"frame {frame} is not in the video {source.video_id!r}, which has frames 0 to "
                         f"{len(source.frame_names) - 1}")
    collector = QueryCollector()
    order = ByAlignment()
    orders = []
    found = None
    for number, (clip, prediction) in enumerate(system.clip_predictions(source, places=system.reads_places)):
        if found is None and frame in clip.indices[:clip.valid]:
            maps = attention_maps(system, clip)
            query = query_at(prediction, clip, point=point, frame=clip.indices.index(frame))
            found = (number, clip, query, _track(maps, clip, point=point, frame=frame, stride=stride))
        collector.add(prediction, clip.valid)
        orders.append(order.step(prediction))
    number, clip, query, track = found
    queries = collector.finish()["queries"]
    return Attended(clip=number, first_frame=clip.indices[0], query=query, track=track,
                    clips=clips_of(system, queries, torch.stack(orders), clip=number, query=query),
                    links=links_of(system, queries, clip=number, query=query))


def attention_maps(system: System, clip: VideoClip) -> dict[str, Tensor]:
    """The dict that the segmenter fills on a clip; {} where it has no attention between frames."""
    maps: dict[str, Tensor] = {}
    device = next(system.segmenter.parameters()).device
    with torch.inference_mode():
        system.segmenter(clip.frames.to(device), clip.real_pixels.to(device), attention=maps)
    return {name: value.cpu() for name, value in maps.items()}


def query_at(prediction: ClipPrediction, clip: VideoClip, *, point: tuple[float, float], frame: int) -> int:
    """The query whose mask is strongest at a point. point: x, y in pixels of the source; frame: of the clip."""
    masks = in_single_precision(prediction).mask_logits[0, :, frame]                    # n h w
    geometry = clip.geometry
    place = [min(int(value * resized / source / padded * cells), cells - 1) for value, resized, source, padded, cells in
             zip(point[::-1], geometry.resized, geometry.source, geometry.padded, masks.shape[1:])]
    return int(masks[:, place[0], place[1]].argmax())


def clips_of(system: System, queries: VideoQueries, orders: Tensor, *, clip: int, query: int) -> list[float] | None:
    """How much a query attends to each clip in the last layer of the head; None without a head that tells."""
    if system.head is None or not hasattr(system.head, "layers"):
        return None
    if system.links is not None:
        orders = link_order(system.links, queries)
    slot = int((orders[clip] == query).nonzero()[0, 0])
    maps: dict[str, Tensor] = {}
    with torch.inference_mode():
        system.head(reordered_video(queries, orders), attention=maps)
    count = queries.queries.shape[2]
    return maps["time"][0, :, clip * count + slot].mean(0).tolist()


def links_of(system: System, queries: VideoQueries, *, clip: int, query: int) -> list[float] | None:
    """The highest link of a query with a query of each clip, as a probability; None without learned links.

    0 where the query is not linked, because it is not sure enough to be an object.
    """
    if system.links is None:
        return None
    with torch.inference_mode():
        links = system.links(queries)
    _, clips, count = links.index.shape
    places = (links.index[0, clip] == query).nonzero()
    if not len(places):
        return [0.0] * clips
    probabilities = links.logits[0, clip * count + int(places[0, 0])].sigmoid()         # x
    return probabilities.unflatten(0, (clips, count)).amax(1).tolist()


def _track(maps: dict[str, Tensor], clip: VideoClip, *, point: tuple[float, float], frame: int,
           stride: int | None) -> Track | None:
    strides = strides_of(maps)
    if stride is not None and stride not in strides:
        raise ValueError(f"there is no trajectory attention at stride {stride}; it is at {strides or 'no stride'}")
    if not strides:
        return None
    return track_of(maps, stride=stride or strides[0], point=point, frame=clip.indices.index(frame),
                    geometry=clip.geometry)
