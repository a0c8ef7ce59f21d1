"""How the official checkpoints of each family are laid out, one dataclass per family.

A converted model keeps its layout, so that converting it back gives the same names. The names of a cross-clip head
stand behind `HEAD`, beside those of its segmenter.
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
    MmdetRelease,
    detectron2_pixel_decoder,
    mmdet_pixel_decoder,
    mmdet_query_decoder,
)
from model.converters.maxtron_video_kmax import WITHIN_CLIP
from model.converters.rename import Rules, nested
from model.converters.tube_linking import TUBE_LINKING
from model.converters.vita import VITA

HEAD = "head."                      # before the names of a cross-clip head, beside those of a segmenter
BACKBONE = "backbone.network."      # where our segmenters keep timm's network
_FRAMED = "sem_seg_head."           # before all names of a detectron2 model, except backbone and cross-clip head
_WITHIN_CLIP = f"{_FRAMED}wc_module."
_PIXEL_DECODER = f"{_FRAMED}pixel_decoder."
_MMDET = "panoptic_head."           # before all names of an mmdetection model, except backbone and linking
_DETECTRON2 = f"{_FRAMED}predictor.transformer_"    # only Mask2Former has such names
_STATIC = f"{_FRAMED}predictor.static_query.weight"
_CAFFE = "res2_0_branch2a_w"        # in detectron2's MSRA/R-50.pkl

Family = Literal["backbone", "video_kmax", "mmdet", "detectron2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Weights of ours that a checkpoint may lack, all of them together."""

    core: str                       # prefix of their names
    reads: tuple[str, ...] = ()     # prefixes of other weights that the core alone reads; without it they are unused
    absent: str                     # the reason that is reported where the checkpoint lacks the core
    unwanted: str = ""              # the reason where the recipe's model may lack it; empty: it may not


_CLIP_ATTENTION = "no attention in time in the checkpoint"
_LINKING = Part(core="linking.", absent="no linking of tubes in the checkpoint")


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

    kMaX-DeepLab, the same with deformable attention, MaXTron near-online and MaXTron offline hold different parts and
    differ in three spellings.
    """

    family: Literal["video_kmax"] = "video_kmax"
    backbone: BackboneNaming
    predictor: Literal["_predictor", "_predcitor"] = "_predictor"     # the second is how kMaX-DeepLab spells it
    within_clip: str = _WITHIN_CLIP                                   # what stands before the within-clip module
    prefix: str = ""
    container: ClassVar[str] = "model"
    optional: ClassVar[tuple[Part, ...]] = (
        Part(core="within_clip.", absent="no within-clip tracking in the checkpoint"),
        Part(core="within_clip.trajectory_stacks.", reads=("within_clip.clip_level_embedding",),
             absent=_CLIP_ATTENTION),
        Part(core="semantic_head.", absent="no auxiliary semantic head in the checkpoint",
             unwanted="auxiliary semantic head; the recipe trains without it"),
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
    """Tube-Link, MaXTron on Tube-Link, near-online and offline, and mmdetection's Mask2Former."""

    family: Literal["mmdet"] = "mmdet"
    backbone: BackboneNaming
    release: MmdetRelease = 2
    prefix: str = ""
    classes: tuple[int, ...] = ()       # our class for each of their class rows, from the recipe; (): the same order
    container: ClassVar[str] = "state_dict"
    optional: ClassVar[tuple[Part, ...]] = (
        Part(core="pixel_decoder.trajectories.", reads=("pixel_decoder.clip_level_embedding",),
             absent=_CLIP_ATTENTION),
        _LINKING,
    )
    # In an offline checkpoint the query decoder and the cross-clip head share these weights; ours have one copy each.
    copies: ClassVar[Rules] = nested(SHARED_HEADS, r"panoptic_head\.", HEAD)

    def rules(self) -> Rules:
        """Every name -> ours. Read backwards by `rename.reverse`."""
        return (
            (r"backbone\.norm(\d)\.(.+)", r"backbone.output_norms.\1.\2"),
            *nested(BACKBONES[self.backbone], r"backbone\.", BACKBONE),
            *nested(mmdet_pixel_decoder(self.release), r"panoptic_head\.pixel_decoder\.", "pixel_decoder."),
            *nested(mmdet_query_decoder(self.release), r"panoptic_head\.", "query_decoder."),
            *nested(MAXTRON_TUBE_LINK, r"panoptic_head\.", HEAD),
            *nested(TUBE_LINKING, "", "linking."),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Detectron2Layout:
    """Mask2Former of detectron2, alone and as the frame detector below VITA."""

    family: Literal["detectron2"] = "detectron2"
    backbone: BackboneNaming
    queries: Literal["query_feat", "static_query"] = "query_feat"     # the second is the older name
    pixel_decoder: str = _PIXEL_DECODER     # what stands before the pixel decoder; older models put nothing between
    counters: bool = False              # whether batch norms count their batches; those with frozen statistics do not
    prefix: str = ""
    container: ClassVar[str] = "model"
    optional: ClassVar[tuple[Part, ...]] = (_LINKING,)
    copies: ClassVar[Rules] = ()
    classes: ClassVar[tuple[int, ...]] = ()

    def rules(self) -> Rules:
        """Every name -> ours. Read backwards by `rename.reverse`."""
        decoder = r"sem_seg_head\.predictor\."
        return (
            (r"backbone\.norm(\d)\.(.+)", r"backbone.output_norms.\1.\2"),
            *nested(BACKBONES[self.backbone], r"backbone\.", BACKBONE),
            *nested(detectron2_pixel_decoder(), re.escape(self.pixel_decoder), "pixel_decoder."),
            (rf"{decoder}{self.queries}\.weight", "query_decoder.initial_queries"),
            *nested(DETECTRON2_QUERY_DECODER, decoder, "query_decoder."),
            *nested(VITA, r"vita_module\.", HEAD),
        )


Layout = BackboneLayout | KMaxLayout | MmdetLayout | Detectron2Layout


def read_layout(names: Iterable[str]) -> Layout:
    """Recognise a checkpoint by its names. Raises ValueError where they belong to no supported model."""
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
        raise ValueError(_unknown_backbone(names))
    if is_mmdet:
        return MmdetLayout(backbone=naming, prefix=prefix, release=3 if _any_has(names, ".cross_attn.") else 2)
    if is_detectron2:
        return Detectron2Layout(backbone=naming, prefix=prefix, counters=_any_has(inside, ".num_batches_tracked"),
                                pixel_decoder=_PIXEL_DECODER if _any_has(names, _PIXEL_DECODER) else _FRAMED,
                                queries="static_query" if _STATIC in names else "query_feat")
    if not is_kmax:
        return BackboneLayout(backbone=naming, prefix=prefix)
    within_clip = next((name.partition("within_clip_tracking_module.")[0] for name in names
                        if "within_clip_tracking_module." in name), _WITHIN_CLIP)
    return KMaxLayout(backbone=naming, predictor=spelling(names), within_clip=within_clip, prefix=prefix)


def _any_has(names: Iterable[str], part: str) -> bool:
    return any(part in name for name in names)


def _unknown_backbone(names: list[str]) -> str:
    if _CAFFE in names:
        return ("these are Caffe's names of a ResNet, as in detectron2's MSRA/R-50.pkl, whose strides are in other "
                "convolutions than ours; take torchvision/R-50.pkl")
    return (f"no known backbone among {len(names)} weights, the first of which are {names[:3]}; known are "
            f"{', '.join(BACKBONES)}, inside kMaX-DeepLab, MaXTron, Tube-Link, Mask2Former or VITA, or alone")


def usual_layout(names: Iterable[str], *, family: Family, image: bool = False) -> Layout:
    """How the official code of a family would spell a model of ours.

    names: of its weights. family: `official_family` of the segmenter's config. image: trained on single frames.
    """
    inside = [name.removeprefix(BACKBONE) for name in names if name.startswith(BACKBONE)]
    naming = usual_naming(inside, mmdet=family == "mmdet")
    if family == "video_kmax":
        return KMaxLayout(backbone=naming, predictor="_predcitor" if image else "_predictor")
    return MmdetLayout(backbone=naming) if family == "mmdet" else Detectron2Layout(backbone=naming)


def restore_layout(values: Mapping[str, Any]) -> Layout:
    """The layout that `dataclasses.asdict` turned into a dict, also after it was written as JSON."""
    families = {"backbone": BackboneLayout, "video_kmax": KMaxLayout, "mmdet": MmdetLayout,
                "detectron2": Detectron2Layout}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return families[values["family"]](**values | lists)
