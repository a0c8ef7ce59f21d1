"""The result makers of one video, as its inference configuration asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from torch import nn

from model.association.quasi_dense import QuasiDenseTracker
from model.contracts import Geometry, Result
from model.cross_clip import CrossClipHead
from model.inference.alignment import Aligned
from model.inference.config import InferenceConfig
from model.inference.driver import ResultMaker
from model.inference.linked import LinkedPanoptic
from model.inference.near_online import Merger, NearOnline
from model.inference.offline import FeatureSpool, Offline
from model.inference.tube_panoptic import TubePanoptic
from model.postprocess.instances import TrackMerger
from model.postprocess.panoptic import PanopticMerger
from model.postprocess.semantic import SemanticMerger


def result_makers(config: InferenceConfig, *, segmenter: nn.Module, head: CrossClipHead | None,
                  is_thing: Sequence[bool] | np.ndarray, geometry: Geometry,
                  spool: FeatureSpool | None = None) -> list[ResultMaker]:
    """Makers of `config.results` for one video.

    head: with it results are made offline. spool: where pixel features wait for the head. That these parts fit together
    is `model.families`' business.
    """
    per_clip: list[ResultMaker] = []
    mergers: dict[Result, Callable[[], Merger]] = {}
    settings = {"is_thing": is_thing, "geometry": geometry}
    for result in config.results:
        match result:
            case "semantic":
                per_clip.append(SemanticMerger(num_classes=len(is_thing), geometry=geometry))
            case "tracks":
                mergers["tracks"] = partial(TrackMerger, config.tracks, **settings)
            case "panoptic" if config.panoptic.kind == "tube":
                per_clip.append(TubePanoptic(config.panoptic, linking=segmenter.linking,
                                             tracker=QuasiDenseTracker(config.tracker),
                                             reserved=segmenter.config.stuff_queries, **settings))
            case "panoptic" if config.association.kind != "hungarian":
                per_clip.append(LinkedPanoptic(config.association.build(), overlap=config.association.overlap,
                                               new_merger=partial(PanopticMerger, config.panoptic, **settings)))
            case "panoptic":
                mergers["panoptic"] = partial(PanopticMerger, config.panoptic, **settings)
    if not mergers:
        return per_clip
    if head is not None:
        return [*per_clip, Aligned([Offline(head, mergers, spool=spool, precision=config.precision)])]
    repeats_count = "panoptic" in mergers and config.panoptic.official_compat
    return [*per_clip, Aligned([NearOnline(mergers, repeats_count=repeats_count)])]
