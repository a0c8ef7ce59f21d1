"""The result makers of one video, as its inference configuration asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from torch import nn

from model.association.links import LinkedInTime, LinkNetwork, link_order
from model.association.quasi_dense import QuasiDenseTracker
from model.contracts import Geometry, Result
from model.cross_clip import CrossClipHead
from model.inference.alignment import Aligned
from model.inference.config import InferenceConfig
from model.inference.driver import ResultMaker
from model.inference.in_parts import InParts
from model.inference.linked import LinkedPanoptic
from model.inference.near_online import Merger, NearOnline
from model.inference.offline import FeatureSpool, Offline
from model.inference.tracked_order import TrackedOrder
from model.inference.tube_panoptic import TubePanoptic
from model.inference.waiting import Waiting
from model.postprocess.instances import TrackMerger
from model.postprocess.panoptic import PanopticMerger
from model.postprocess.semantic import SemanticMerger


def shared_frames(config: InferenceConfig) -> int:
    """Frames that a clip shares with the clip before it."""
    return config.association.overlap or getattr(config.panoptic, "shared_frames", 0)


def result_makers(config: InferenceConfig, *, segmenter: nn.Module, head: CrossClipHead | None,
                  is_thing: Sequence[bool] | np.ndarray, geometry: Geometry, links: LinkNetwork | None = None,
                  spool: FeatureSpool | None = None) -> list[ResultMaker]:
    """Makers of `config.results` for one video.

    head: with it results are made offline. links: for the association of that kind. spool: where pixel features wait
    for the head, or masks for the order of links over the whole video. That these parts fit together is
    `model.families`' business.
    """
    linked = config.association.kind == "links"
    per_clip: list[ResultMaker] = []
    in_order: list[ResultMaker] = []        # for which query n has to be one object
    mergers: dict[Result, Callable[[], Merger]] = {}
    settings = {"is_thing": is_thing, "geometry": geometry}
    for result in config.results:
        match result:
            case "semantic":
                per_clip.append(SemanticMerger(num_classes=len(is_thing), geometry=geometry))
            case "tracks":
                mergers["tracks"] = partial(TrackMerger, config.tracks, **settings)
            case "panoptic" if config.panoptic.kind == "tube" and (linked or segmenter.linking is None):
                in_order.append(TubePanoptic(config.panoptic, linking=None, tracker=None, **settings))
            case "panoptic" if config.panoptic.kind == "tube":
                per_clip.append(TubePanoptic(config.panoptic, linking=segmenter.linking,
                                             tracker=QuasiDenseTracker(config.tracker),
                                             reserved=segmenter.config.stuff_queries, **settings))
            case "panoptic" if config.association.kind not in ("hungarian", "links"):
                per_clip.append(LinkedPanoptic(config.association.build(), overlap=config.association.overlap,
                                               new_merger=partial(PanopticMerger, config.panoptic, **settings)))
            case "panoptic":
                mergers["panoptic"] = partial(PanopticMerger, config.panoptic, **settings)
    repeats_count = "panoptic" in mergers and config.panoptic.official_compat
    if mergers and head is not None:
        whole = partial(link_order, links) if linked and not config.association.streaming else None
        new_maker = partial(Offline, head, mergers, precision=config.precision, order=whole)
        in_order.append(new_maker(spool=spool) if config.parts is None else InParts(
            config.parts, lambda features: new_maker(spool=features), most=config.tracks.candidates, spool=spool))
    elif mergers:
        in_order.append(NearOnline(mergers, repeats_count=repeats_count))
    if not in_order:
        return per_clip
    if not linked:
        order = TrackedOrder(config.tracker) if config.association.kind == "quasi_dense" else None
        return [*per_clip, Aligned(in_order, order=order)]
    if config.association.streaming:
        return [*per_clip, Aligned(in_order, order=LinkedInTime(links))]
    if head is not None:
        return [*per_clip, *in_order]
    return [*per_clip, Waiting(in_order, order=partial(link_order, links), spool=spool)]
