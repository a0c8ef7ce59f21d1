"""Which segmenter, losses and results belong together: one row a family of networks.

A recipe asks this table when it is built, a system when it is opened; so a setting that no network can follow is
refused before anything is read. A new segmenter is a row here. Cross-clip heads have a table of their own
(`model.cross_clip.ROWS`): a head declares what it reads, and goes with every segmenter whose queries are like that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.contracts import QueryShapes, Result
from model.cross_clip import HEADS
from model.cross_clip.base import HeadConfig
from model.inference.config import InferenceConfig
from model.inference.makers import shared_frames
from model.losses.cross_clip import CrossClipLossConfig, MaskCrossClipLossConfig
from model.losses.kmax import KMaxLossConfig
from model.losses.mask2former import Mask2FormerLossConfig
from model.losses.vita import VitaLossConfig
from model.segmenters.mask2former import Mask2FormerConfig
from model.segmenters.tube_link import TubeLinkConfig
from model.segmenters.video_kmax import VideoKMaxConfig

ALIGNED = ("hungarian", "links")      # their queries are reordered before clips are merged
LINKED = ("stitching", "memory_buffer", "naive_buffer", "clip_wise")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to make a result."""

    associations: tuple[str, ...] = ALIGNED     # kinds of association that it goes with
    panoptic: str = ""                          # kind of `inference.panoptic`; "": the result is not panoptic


@dataclass(frozen=True, kw_only=True)
class Family:
    """One row: a segmenter, what trains with it, and what it can make."""

    segmenter: type                             # config
    losses: type                                # config, of stage one
    video_losses: type                          # config, of stage two
    near_online: Mapping[Result, Way]
    offline: Mapping[Result, Way]               # with a cross-clip head
    is_frame_detector: bool = False             # its clips are single frames
    side_remainders: tuple[int, ...] = (0,)     # of a side of the network input, divided by the largest stride
    fixed_canvas: bool = False                  # all its inputs have one size
    masks_compete: bool = False                 # masks share each pixel by a softmax; False: each is a sigmoid


STRIDE = 32         # the largest of every segmenter

# Video-kMaX aligns the corners of its maps at sizes 1 + 32 k, and their cells at multiples of 32. What it learns at
# sizes of one kind does not fit the other.
FAMILIES = [
    Family(segmenter=VideoKMaxConfig, losses=KMaxLossConfig, video_losses=CrossClipLossConfig,
           near_online={"panoptic": Way(panoptic="mask_wise", associations=ALIGNED + LINKED)},
           offline={"panoptic": Way(panoptic="mask_wise")}, side_remainders=(0, 1), fixed_canvas=True,
           masks_compete=True),
    Family(segmenter=TubeLinkConfig, losses=Mask2FormerLossConfig, video_losses=MaskCrossClipLossConfig,
           near_online={"panoptic": Way(panoptic="tube"), "tracks": Way(associations=(*ALIGNED, "quasi_dense")),
                        "semantic": Way()},
           offline={"tracks": Way()}),
    Family(segmenter=Mask2FormerConfig, losses=Mask2FormerLossConfig, video_losses=VitaLossConfig,
           near_online={"tracks": Way(), "semantic": Way()}, is_frame_detector=True,
           # VITA's head reads the queries of a frame as a set, so their order would change nothing.
           offline={"tracks": Way(associations=("hungarian",))}),
]


def family_of(segmenter: Any) -> Family:
    """The row of a segmenter's config. Raises ValueError where it has none."""
    for family in FAMILIES:
        if family.segmenter is type(segmenter):
            return family
    raise ValueError(f"{type(segmenter).__name__} has no row in model.families.FAMILIES; add one that names its "
                     "losses, heads and results")


def refuse_unfit_results(inference: InferenceConfig, segmenter: Any, *, offline: bool, clip_frames: int) -> None:
    """Raise ValueError where the segmenter cannot make what is asked for in this mode, naming the setting to change.

    segmenter: its config. clip_frames: of training; `inference.clip_frames` comes first.
    """
    family = family_of(segmenter)
    mode = "offline" if offline else "near-online"
    ways = family.offline if offline else family.near_online
    for result in inference.results:
        if result not in ways:
            raise ValueError(f"{segmenter.kind} makes {', '.join(ways)} {mode}, not {result}; leave {result} out of "
                             f"inference.results={list(inference.results)}, or choose another mode or recipe")
        _refuse_unfit_way(inference, segmenter, ways[result], result=result, mode=mode)
    if inference.resize is not None:
        refuse_unfit_canvas(segmenter, size=None, pad_to=inference.resize.pad_to, field="inference.resize")
    frames = inference.clip_frames or clip_frames
    if family.is_frame_detector and frames != 1:
        raise ValueError(f"{segmenter.kind} is a frame detector, and takes clips of one frame; got clips of {frames}. "
                         "Set inference.clip_frames=1, and stage_one.input.clip_frames=1 unless a head trains along "
                         "(stage_one.joint)")
    overlap = shared_frames(inference)
    if overlap >= frames:
        setting = "association.overlap" if inference.association.overlap else "panoptic.shared_frames"
        raise ValueError(f"{inference.association.kind} with overlap={overlap} needs longer clips than {frames} "
                         f"frames; set inference.{setting} below {frames}, or inference.clip_frames above {overlap}")


def refuse_unfit_canvas(segmenter: Any, *, size: tuple[int, int] | None, pad_to: int | None, field: str) -> None:
    """Raise ValueError unless the segmenter takes frames on such a canvas.

    segmenter: its config. size: (height, width) of a fixed canvas, pixels. pad_to: sides of a canvas that follows its
    frames are multiples of it; None: it is fixed. field: of the recipe, for the message.
    """
    family = family_of(segmenter)
    if pad_to is not None:
        if family.fixed_canvas:
            cure = f"{field}=null" if field == "inference.resize" else f"{field}.pad_to=null, and its size"
            raise ValueError(f"{segmenter.kind} takes frames of one size only, but {field} gives each video or batch a "
                             f"size of its own; set {cure}")
        if pad_to % STRIDE:
            raise ValueError(f"{segmenter.kind} takes sides that are multiples of {STRIDE}, but {field}.pad_to is "
                             f"{pad_to}; set it to {STRIDE}")
    elif {side % STRIDE for side in size} - set(family.side_remainders) or len({side % 2 for side in size}) > 1:
        kinds = " or both ".join("1 + 32 k" if remainder else "32 k" for remainder in family.side_remainders)
        raise ValueError(f"{field}.size is {size}, but {segmenter.kind} takes sides that are both {kinds}; the next "
                         f"size is {tuple(-(-side // STRIDE) * STRIDE for side in size)}")


def _refuse_unfit_way(inference: InferenceConfig, segmenter: Any, way: Way, *, result: Result, mode: str) -> None:
    if inference.association.kind not in way.associations:
        raise ValueError(f"{segmenter.kind} makes {result} {mode} with association {' or '.join(way.associations)}, "
                         f"not {inference.association.kind}; set inference.association="
                         f"'{{\"kind\": \"{way.associations[0]}\"}}', or choose another mode or recipe")
    if way.panoptic and inference.panoptic.kind != way.panoptic:
        raise ValueError(f"{segmenter.kind} makes panoptic videos by kind {way.panoptic!r}, not "
                         f"{inference.panoptic.kind!r}; set inference.panoptic='{{\"kind\": \"{way.panoptic}\"}}'")


def refuse_unfit_head(segmenter: Any, head: HeadConfig, losses: Any, *, field: str) -> None:
    """Raise ValueError unless a cross-clip head can read the queries of a segmenter and trains with the losses that
    fit its masks. All are configs.

    field: of the recipe, that holds head and losses, for the message.
    """
    fitting = family_of(segmenter).video_losses
    if type(losses) is not fitting:
        raise ValueError(f"{field}.losses is {type(losses).__name__}, but heads on {type(segmenter).__name__} train "
                         f"with {fitting.__name__}; set {field}.losses.kind={fitting.kind}")
    refuse_unfit_queries(head, segmenter.shapes, setting=f"{field}.head")


def refuse_unfit_queries(head: HeadConfig, shapes: QueryShapes, *, setting: str) -> None:
    """Raise ValueError unless a cross-clip head can read queries of these shapes. setting: of the recipe, the head."""
    head.reads.refuse_unfit(head, shapes, setting=setting,
                            others=[other.kind for other in HEADS if other.reads.suits(shapes)])
