"""How the official checkpoints of each family are laid out: one dataclass per family, kept so that the way back gives
the same names. Names of cross-clip heads are ours behind `HEAD`, beside those of a segmenter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from model.converters.backbones import BACKBONES, CLASSIFIER, BackboneNaming, backbone_naming, usual_naming
from model.converters.cross_clip import MAXTRON_KMAX, MAXTRON_TUBE_LINK, SHARED_HEADS
from model.converters.kmax import PIXEL_DECODER, decoder_rules, spelling
from model.converters.mask2former import (
    DETECTRON2_QUERY_DECODER,
    MMDET_PIXEL_DECODER,
    MMDET_QUERY_DECODER,
    detectron2_pixel_decoder,
)
from model.converters.maxtron_video_kmax import WITHIN_CLIP
from model.converters.rename import Rules, nested
from model.converters.tube_linking import TUBE_LINKING
from model.converters.vita import VITA

HEAD = "head."                      # before the names of a cross-clip head, beside those of a segmenter
BACKBONE = "backbone.network."      # where our segmenters keep timm's network
_FRAMED = "sem_seg_head."           # before everything of a detectron2 model but backbone and cross-clip head
_WITHIN_CLIP = f"{_FRAMED}wc_module."
_MMDET = "panoptic_head."           # before everything of an mmdetection model but backbone and linking
_DETECTRON2 = f"{_FRAMED}predictor.transformer_"    # only Mask2Former has it there
_STATIC = f"{_FRAMED}predictor.static_query.weight"

Part = tuple[tuple[str, ...], str]  # names of ours a checkpoint may lack altogether, and what to say then


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneLayout:
    """ImageNet weights of a backbone alone."""

    family: Literal["backbone"] = "backbone"
    backbone: BackboneNaming
    prefix: str = ""                                                  # "module." where a DDP wrapper was saved
    container: ClassVar[str] = "model"                                # the entry of a .pth file that holds the weights
    optional: ClassVar[tuple[Part, ...]] = ()
    copies: ClassVar[Rules] = ()
    classes: ClassVar[tuple[int, ...]] = ()

    def rules(self) -> Rules:
        """Every name -> ours. Read backwards by `rename.reverse`."""
        return (*nested(BACKBONES[self.backbone], "", BACKBONE), *CLASSIFIER)


@dataclass(frozen=True, slots=True, kw_only=True)
class KMaxLayout:
    """kMaX-DeepLab and MaXTron on Video-kMaX.

    COCO kMaX-DeepLab, kMaX with deformable attention, MaXTron near-online and offline differ in which parts they hold
    and in three spellings.
    """

    family: Literal["video_kmax"] = "video_kmax"
    backbone: BackboneNaming
    predictor: Literal["_predictor", "_predcitor"] = "_predictor"     # the second is how kMaX-DeepLab spells it
    within_clip: str = _WITHIN_CLIP                                   # what stands before the within-clip module
    prefix: str = ""
    container: ClassVar[str] = "model"
    optional: ClassVar[tuple[Part, ...]] = (
        (("within_clip.",), "no within-clip tracking in the checkpoint"),
        (("within_clip.trajectory_stacks.", "within_clip.clip_level_embedding"), "no attention in time in the "
                                                                                 "checkpoint"),
        (("semantic_head.",), "no auxiliary semantic head in the checkpoint"),
    )
    copies: ClassVar[Rules] = ()
    classes: ClassVar[tuple[int, ...]] = ()

    def rules(self) -> Rules:
        """Every name -> ours. Read backwards by `rename.reverse`."""
        return (
            *nested(BACKBONES[self.backbone], r"backbone\.", BACKBONE),
            *nested(WITHIN_CLIP, re.escape(self.within_clip), "within_clip."),
            *nested(PIXEL_DECODER, r"sem_seg_head\.pixel_decoder\.", "pixel_decoder."),
            *nested(decoder_rules(predictor=self.predictor), r"sem_seg_head\.predictor\.", ""),
            *nested(MAXTRON_KMAX, r"cross_clip_tracking_module\.", HEAD),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MmdetLayout:
    """Tube-Link, MaXTron on Tube-Link, near-online and offline, and COCO Mask2Former of mmdetection."""

    family: Literal["mmdet"] = "mmdet"
    backbone: BackboneNaming
    prefix: str = ""
    classes: tuple[int, ...] = ()       # our class of each of their class rows, which no name tells; (): the same order
    container: ClassVar[str] = "state_dict"
    optional: ClassVar[tuple[Part, ...]] = (
        (("pixel_decoder.trajectories.", "pixel_decoder.clip_level_embedding"), "no attention in time in the "
                                                                                "checkpoint"),
        (("linking.",), "no linking of tubes in the checkpoint"),
    )
    # An offline checkpoint has these once, for the query decoder and for the cross-clip head; ours have one each.
    copies: ClassVar[Rules] = nested(SHARED_HEADS, r"panoptic_head\.", HEAD)

    def rules(self) -> Rules:
        """Every name -> ours. Read backwards by `rename.reverse`."""
        return (
            (r"backbone\.norm(\d)\.(.+)", r"backbone.output_norms.\1.\2"),
            *nested(BACKBONES[self.backbone], r"backbone\.", BACKBONE),
            *nested(MMDET_PIXEL_DECODER, r"panoptic_head\.pixel_decoder\.", "pixel_decoder."),
            *nested(MMDET_QUERY_DECODER, r"panoptic_head\.", "query_decoder."),
            *nested(MAXTRON_TUBE_LINK, r"panoptic_head\.", HEAD),
            *nested(TUBE_LINKING, "", "linking."),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Detectron2Layout:
    """Mask2Former of detectron2: on COCO, and as the frame detector below VITA."""

    family: Literal["detectron2"] = "detectron2"
    backbone: BackboneNaming
    queries: Literal["query_feat", "static_query"] = "query_feat"     # the second is how some COCO models spell it
    counters: bool = False              # whether batch norms count their batches; those with frozen statistics do not
    prefix: str = ""
    container: ClassVar[str] = "model"
    optional: ClassVar[tuple[Part, ...]] = ((("linking.",), "no linking of tubes in the checkpoint"),)
    copies: ClassVar[Rules] = ()
    classes: ClassVar[tuple[int, ...]] = ()

    def rules(self) -> Rules:
        """Every name -> ours. Read backwards by `rename.reverse`."""
        decoder = r"sem_seg_head\.predictor\."
        return (
            (r"backbone\.norm(\d)\.(.+)", r"backbone.output_norms.\1.\2"),
            *nested(BACKBONES[self.backbone], r"backbone\.", BACKBONE),
            *nested(detectron2_pixel_decoder(), r"sem_seg_head\.pixel_decoder\.", "pixel_decoder."),
            (rf"{decoder}{self.queries}\.weight", "query_decoder.initial_queries"),
            *nested(DETECTRON2_QUERY_DECODER, decoder, "query_decoder."),
            *nested(VITA, r"vita_module\.", HEAD),
        )


Layout = BackboneLayout | KMaxLayout | MmdetLayout | Detectron2Layout


def read_layout(names: Iterable[str]) -> Layout:
    """Recognise a checkpoint by its names. Raises ValueError where they are of no model this converter knows."""
    names = list(names)
    prefix = "module." if names and all(name.startswith("module.") for name in names) else ""
    names = [name.removeprefix(prefix) for name in names]
    is_kmax = any(name.startswith(f"{_FRAMED}predictor._") for name in names)
    is_mmdet = any(name.startswith(_MMDET) for name in names)
    is_detectron2 = any(name.startswith(_DETECTRON2) for name in names)
    inside = names
    if is_kmax or is_mmdet or is_detectron2:
        inside = [name.removeprefix("backbone.") for name in names if name.startswith("backbone.")]
    if (naming := backbone_naming(inside)) is None:
        raise ValueError(f"no known backbone among {len(names)} weights, the first of which are {names[:3]}; known are "
                         f"{', '.join(BACKBONES)}, inside kMaX-DeepLab, MaXTron, Tube-Link, Mask2Former or VITA, "
                         "or alone")
    if is_mmdet:
        return MmdetLayout(backbone=naming, prefix=prefix)
    if is_detectron2:
        return Detectron2Layout(backbone=naming, prefix=prefix, counters=_keep_counters(inside),
                                queries="static_query" if _STATIC in names else "query_feat")
    if not is_kmax:
        return BackboneLayout(backbone=naming, prefix=prefix)
    within_clip = next((name.partition("within_clip_tracking_module.")[0] for name in names
                        if "within_clip_tracking_module." in name), _WITHIN_CLIP)
    return KMaxLayout(backbone=naming, predictor=spelling(names), within_clip=within_clip, prefix=prefix)


def _keep_counters(names: Iterable[str]) -> bool:
    return any(name.endswith(".num_batches_tracked") for name in names)


def usual_layout(names: Iterable[str], *, image: bool, detectron2: bool = False) -> Layout:
    """How the official code would spell a model of ours. names: of its weights. image: trained on single frames.

    detectron2: where Mask2Former, whose names tell nothing, goes to detectron2, as VITA's frame detector does.
    """
    names = list(names)
    inside = [name.removeprefix(BACKBONE) for name in names if name.startswith(BACKBONE)]
    if detectron2:
        return Detectron2Layout(backbone=usual_naming(inside))
    if "query_decoder.query_positions" in names:
        return MmdetLayout(backbone=usual_naming(inside, mmdet=True))
    return KMaxLayout(backbone=usual_naming(inside), predictor="_predcitor" if image else "_predictor")


def restore_layout(values: Mapping[str, Any]) -> Layout:
    """What `dataclasses.asdict` made of a layout, as a layout again."""
    families = {"backbone": BackboneLayout, "video_kmax": KMaxLayout, "mmdet": MmdetLayout,
                "detectron2": Detectron2Layout}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}     # as json has them
    return families[values["family"]](**values | lists)
