"""Whole checkpoints of kMaX-DeepLab and MaXTron (Video-kMaX flavour) <-> our segmenter and cross-clip head.

One table serves COCO kMaX-DeepLab, kMaX with deformable attention, MaXTron near-online and offline: they differ in
which parts they hold and in three spellings, which `OfficialLayout` keeps so that the way back gives the same names.
An ImageNet file is the same with only a backbone. Names of head weights are ours behind `HEAD`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from model.converters.backbones import (
    BACKBONES,
    CLASSIFIER,
    BackboneNaming,
    backbone_naming,
    our_shape,
    their_shape,
    usual_naming,
)
from model.converters.cross_clip import MAXTRON_KMAX
from model.converters.kmax import PIXEL_DECODER, decoder_rules, spelling
from model.converters.maxtron_video_kmax import WITHIN_CLIP
from model.converters.rename import Rules, nested, new_name, rename, reverse

HEAD = "head."                      # before the names of a cross-clip head, beside those of a segmenter
_BACKBONE = "backbone.network."     # where our segmenter keeps timm's network
_FRAMED = "sem_seg_head."           # before everything of a kMaX model but backbone and cross-clip head
_OTHERS = (("panoptic_head.", "Tube-Link, MaXTron on Tube-Link or another mmdet model"), ("vita_module.", "VITA"),
           ("sem_seg_head.predictor.transformer_", "Mask2Former in detectron2"))
_REBUILT = re.compile(r"(.*\.)?(criterion\..+|pixel_mean|pixel_std)")       # constants of a run, nothing learnt
_CLASS_ROWS = re.compile(r"(.*\.)?(class_head|classify)\.conv\.(weight|bias)")
_WITHIN_CLIP = f"{_FRAMED}wc_module."
# Parts of ours that a checkpoint may lack altogether, and training then starts.
_OPTIONAL = (
    (("within_clip.",), "no within-clip tracking in the checkpoint"),
    (("within_clip.trajectory_stacks.", "within_clip.clip_level_embedding"), "no attention in time in the checkpoint"),
    (("semantic_head.",), "no auxiliary semantic head in the checkpoint"),
)
_MOST_PROBLEMS = 20                 # that are printed one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialLayout:
    """Where checkpoints of one family spell the same weight differently."""

    backbone: BackboneNaming
    whole: bool = True                                                # False: ImageNet weights of a backbone alone
    predictor: Literal["_predictor", "_predcitor"] = "_predictor"     # the second is how kMaX-DeepLab spells it
    within_clip: str = _WITHIN_CLIP                                   # what stands before the within-clip module
    prefix: str = ""                                                  # "module." where a DDP wrapper was saved

    def rules(self) -> Rules:
        """Every name -> ours. Read backwards by `rename.reverse`."""
        backbone = BACKBONES[self.backbone]
        if not self.whole:
            return (*nested(backbone, "", _BACKBONE), *CLASSIFIER)
        return (
            *nested(backbone, r"backbone\.", _BACKBONE),
            *nested(WITHIN_CLIP, re.escape(self.within_clip), "within_clip."),
            *nested(PIXEL_DECODER, r"sem_seg_head\.pixel_decoder\.", "pixel_decoder."),
            *nested(decoder_rules(predictor=self.predictor), r"sem_seg_head\.predictor\.", ""),
            *nested(MAXTRON_KMAX, r"cross_clip_tracking_module\.", HEAD),
        )


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What became of every weight of a foreign checkpoint, and where every weight of ours comes from."""

    weights: dict[str, Tensor]       # our name -> weight
    names: dict[str, str]            # their name -> ours, of all that were taken
    unused: dict[str, str]           # their name -> why it was not taken
    from_scratch: dict[str, str]     # our name -> why the checkpoint does not fill it


def read_layout(names: Iterable[str]) -> OfficialLayout:
    """Recognise a checkpoint by its names. Raises ValueError naming the family where it is another one."""
    names = list(names)
    prefix = "module." if names and all(name.startswith("module.") for name in names) else ""
    names = [name.removeprefix(prefix) for name in names]
    for sign, family in _OTHERS:
        if any(name.startswith(sign) for name in names):
            raise ValueError(f"these are the weights of {family} (names start with {sign!r}); this converter reads "
                             "kMaX-DeepLab, MaXTron on Video-kMaX and ImageNet backbones")
    whole = any(name.startswith(f"{_FRAMED}predictor._") for name in names)
    inside = [name.removeprefix("backbone.") for name in names if name.startswith("backbone.")] if whole else names
    if (naming := backbone_naming(inside)) is None:
        raise ValueError(f"no known backbone among {len(names)} weights, the first of which are {names[:3]}; known are "
                         f"{', '.join(BACKBONES)}, inside kMaX-DeepLab or MaXTron on Video-kMaX or alone")
    within_clip = next((name.partition("within_clip_tracking_module.")[0] for name in names
                        if "within_clip_tracking_module." in name), _WITHIN_CLIP)
    return OfficialLayout(backbone=naming, whole=whole, predictor=spelling(names), within_clip=within_clip,
                          prefix=prefix)


def usual_layout(names: Iterable[str], *, image: bool) -> OfficialLayout:
    """How the official code would spell a model of ours. names: of its weights. image: trained on single frames."""
    inside = [name.removeprefix(_BACKBONE) for name in names if name.startswith(_BACKBONE)]
    return OfficialLayout(backbone=usual_naming(inside), predictor="_predcitor" if image else "_predictor")


def has_head(names: Iterable[str]) -> bool:
    """Whether a checkpoint holds a cross-clip head, as offline ones do."""
    return any("cross_clip_tracking_module." in name for name in names)


def has_semantic_head(names: Iterable[str]) -> bool:
    """Whether a checkpoint holds the auxiliary semantic head; offline ones do not."""
    return any("._auxiliary_semantic_predictor." in name for name in names)


def to_ours(state: Mapping[str, Tensor], *, layout: OfficialLayout, own: Mapping[str, Tensor]) -> Conversion:
    """Give every weight of a checkpoint its place in our model.

    own: state dict of the segmenter, and of the head behind `HEAD`; only shapes are read, so meta tensors will do.
    Class rows of another number of classes are left out, and so is what only training needs and `own` lacks. Anything
    else that does not fit is a ValueError that lists it.
    """
    rules, found, problems = layout.rules(), Conversion(weights={}, names={}, unused={}, from_scratch={}), []
    for name, tensor in state.items():
        bare = name.removeprefix(layout.prefix)
        if _REBUILT.fullmatch(bare):
            found.unused[name] = "a constant that every run rebuilds"
            continue
        try:
            ours = new_name(bare, rules)
        except KeyError:
            problems.append(f"{name}: no such weight in the official models this converter knows")
            continue
        reason, problem = _fit(ours, tensor, own)
        if ours in found.weights:
            problems.append(f"{name}: {ours} is filled already; two spellings in one checkpoint")
        elif problem:
            problems.append(f"{name}: {problem}")
        elif reason:
            found.unused[name] = reason
        else:
            found.names[name], found.weights[ours] = ours, our_shape(tensor, name=ours)
    for name in (name for name in own if name not in found.weights):
        if reason := _why_missing(name, found, own, layout):
            found.from_scratch[name] = reason
        else:
            problems.append(f"our {name}: not in the checkpoint")
    if problems:
        raise ValueError(_misfit(problems, total=len(state)))
    return found


def to_theirs(weights: Mapping[str, Tensor], *, layout: OfficialLayout) -> dict[str, Tensor]:
    """Our weights, those of a head behind `HEAD`, under official names and in official shapes.

    Raises ValueError naming weights that the official code has no place for.
    """
    if not layout.whole:
        weights = {name: tensor for name, tensor in weights.items() if name.startswith(_BACKBONE)}
    theirs = rename(dict(weights), reverse(layout.rules()))
    return {f"{layout.prefix}{name}": their_shape(tensor, name=name) for name, tensor in theirs.items()}


def _fit(ours: str | None, tensor: Tensor, own: Mapping[str, Tensor]) -> tuple[str, str]:
    """(why the weight is left out, what is wrong with it); both empty where it is taken."""
    if ours is None:
        return "the classifier of the pre-training", ""
    if ours not in own:
        if ours.startswith("semantic_head.") and not any(name.startswith("semantic_head.") for name in own):
            return "auxiliary semantic head; the recipe trains without it", ""
        return "", f"the recipe's model has no {ours}"
    shape, expected = tuple(our_shape(tensor, name=ours).shape), tuple(own[ours].shape)
    if shape == expected:
        return "", ""
    if _CLASS_ROWS.fullmatch(ours) and shape[1:] == expected[1:]:
        return f"{shape[0]} class rows, the recipe's model has {expected[0]}", ""
    return "", f"shape {shape}, the recipe's {ours} has {expected}"


def _why_missing(name: str, found: Conversion, own: Mapping[str, Tensor], layout: OfficialLayout) -> str:
    """Why a weight of ours may start from scratch; empty where it may not."""
    if not layout.whole and not name.startswith(_BACKBONE):
        return "ImageNet weights fill the backbone alone"
    if name.endswith(".num_batches_tracked"):
        return "a counter the checkpoint does not keep"
    if _CLASS_ROWS.fullmatch(name) and any("class rows" in reason for reason in found.unused.values()):
        return f"{len(own[name])} class rows, the checkpoint has another number"
    return next((reason for prefixes, reason in _OPTIONAL
                 if name.startswith(prefixes) and not any(n.startswith(prefixes) for n in found.weights)), "")


def _misfit(problems: list[str], *, total: int) -> str:
    more = [f"... and {len(problems) - _MOST_PROBLEMS} more"] if len(problems) > _MOST_PROBLEMS else []
    listing = "\n  ".join([*problems[:_MOST_PROBLEMS], *more])
    return (f"{len(problems)} weights do not fit ({total} in the checkpoint):\n  {listing}\nChoose the recipe whose "
            "backbone, within-clip tracking and sizes are those of the checkpoint, or --set its fields under "
            "stage_one.segmenter and stage_two.head")
