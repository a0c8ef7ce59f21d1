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
from model.converters.mask2former import MMDET_PIXEL_DECODER, MMDET_QUERY_DECODER
from model.converters.maxtron_video_kmax import WITHIN_CLIP
from model.converters.rename import Rules, nested
from model.converters.tube_linking import TUBE_LINKING

HEAD = "head."                      # before the names of a cross-clip head, beside those of a segmenter
BACKBONE = "backbone.network."      # where our segmenters keep timm's network
_FRAMED = "sem_seg_head."           # before everything of a kMaX model but backbone and cross-clip head
_WITHIN_CLIP = f"{_FRAMED}wc_module."
_MMDET = "panoptic_head."           # before everything of an mmdetection model but backbone and linking
_OTHERS = (("vita_module.", "VITA"), (f"{_FRAMED}predictor.transformer_", "Mask2Former in detectron2"))

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


Layout = BackboneLayout | KMaxLayout | MmdetLayout


def read_layout(names: Iterable[str]) -> Layout:
    """Recognise a checkpoint by its names. Raises ValueError naming the family where it is another one."""
    names = list(names)
    prefix = "module." if names and all(name.startswith("module.") for name in names) else ""
    names = [name.removeprefix(prefix) for name in names]
    for sign, family in _OTHERS:
        if any(name.startswith(sign) for name in names):
            raise ValueError(f"these are the weights of {family} (names start with {sign!r}); this converter reads "
                             "kMaX-DeepLab, MaXTron, Tube-Link, Mask2Former of mmdetection and ImageNet backbones")
    is_kmax = any(name.startswith(f"{_FRAMED}predictor._") for name in names)
    is_mmdet = any(name.startswith(_MMDET) for name in names)
    inside = names
    if is_kmax or is_mmdet:
        inside = [name.removeprefix("backbone.") for name in names if name.startswith("backbone.")]
    if (naming := backbone_naming(inside)) is None:
        raise ValueError(f"no known backbone among {len(names)} weights, the first of which are {names[:3]}; known are "
                         f"{', '.join(BACKBONES)}, inside kMaX-DeepLab, MaXTron or Tube-Link or alone")
    if is_mmdet:
        return MmdetLayout(backbone=naming, prefix=prefix)
    if not is_kmax:
        return BackboneLayout(backbone=naming, prefix=prefix)
    within_clip = next((name.partition("within_clip_tracking_module.")[0] for name in names
                        if "within_clip_tracking_module." in name), _WITHIN_CLIP)
    return KMaxLayout(backbone=naming, predictor=spelling(names), within_clip=within_clip, prefix=prefix)


def usual_layout(names: Iterable[str], *, image: bool) -> Layout:
    """How the official code would spell a model of ours. names: of its weights. image: trained on single frames."""
    names = list(names)
    inside = [name.removeprefix(BACKBONE) for name in names if name.startswith(BACKBONE)]
    if "query_decoder.query_positions" in names:
        return MmdetLayout(backbone=usual_naming(inside, mmdet=True))
    return KMaxLayout(backbone=usual_naming(inside), predictor="_predcitor" if image else "_predictor")


def restore_layout(values: Mapping[str, Any]) -> Layout:
    """What `dataclasses.asdict` made of a layout, as a layout again."""
    families = {"backbone": BackboneLayout, "video_kmax": KMaxLayout, "mmdet": MmdetLayout}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}     # as json has them
    return families[values["family"]](**values | lists)
