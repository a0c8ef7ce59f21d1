"""The checkpoints that official model zoos list beside the recorded layouts, as literal respellings of those."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from tests.model.converters.recorded_layouts import shapes_only

KMAX = {"r50": "maxtron_kmax_within_clip_r50_vipseg", "convnext_l": "maxtron_kmax_within_clip_convnext_large_vipseg"}
TUBE_LINK = "tubelink_r50_ytvis21"
VITA = "vita_r50_youtubevis2019"
CLIP_LEVELS = "sem_seg_head.wc_module.within_clip_tracking_module.transformer.level_embed_3d"

State = dict[str, Tensor]


def with_rows(state: Mapping[str, Tensor], rows: int, *, of: str) -> State:
    """The same state with another number of classes. of: pattern of the classifiers' names."""
    return {name: tensor.new_empty(rows, *tensor.shape[1:]) if re.fullmatch(of, name) else tensor
            for name, tensor in state.items()}


def respelled(state: Mapping[str, Tensor], *rules: tuple[str, str]) -> State:
    """The same state with every rule's pattern replaced, one rule after the other."""
    result = dict(state)
    for pattern, replacement in rules:
        result = {re.sub(pattern, replacement, name): tensor for name, tensor in result.items()}
    return result


def as_convnext_v2(state: Mapping[str, Tensor]) -> State:
    """ConvNeXt's second version: response norms of four axes instead of layer scales."""
    result = dict(state)
    for name in [name for name in state if name.endswith(".gamma")]:
        hidden = state[name.replace(".gamma", ".pwconv1.bias")].numel()
        for part in ("gamma", "beta"):
            result[name.replace(".gamma", f".grn.{part}")] = state[name].new_empty(1, 1, 1, hidden)
        del result[name]
    return result


def coco_kmax_msda(backbone: str) -> State:
    """MaXTron's COCO model with deformable attention: one frame, 133 classes, and the clip-level embedding unused."""
    state = shapes_only(KMAX["r50" if backbone == "r50" else "convnext_l"])
    if backbone == "convnextv2_l":
        state = as_convnext_v2(state)
    state = {name: tensor for name, tensor in state.items() if ".temporal_layers." not in name}
    state = respelled(state, (r"\._predictor\.", "._predcitor."))
    return with_rows(state, 134, of=r".*(_transformer_class_head\.conv|_auxiliary.*\.final_conv\.conv)\.(weight|bias)")


def mmdet_mask2former(classes: int, *, release: int = 2) -> State:
    """mmdetection's Mask2Former with ResNet-50, as its releases 2 and 3 spell it."""
    state = with_rows(shapes_only(TUBE_LINK), classes + 1, of=r"panoptic_head\.cls_embed\..+")
    if release == 2:
        return state
    return respelled(state, (r"pixel_decoder\.encoder\.layers\.(\d)\.attentions\.0\.",
                             r"pixel_decoder.encoder.layers.\1.self_attn."),
                     (r"transformer_decoder\.layers\.(\d)\.attentions\.0\.",
                      r"transformer_decoder.layers.\1.cross_attn."),
                     (r"transformer_decoder\.layers\.(\d)\.attentions\.1\.",
                      r"transformer_decoder.layers.\1.self_attn."),
                     (r"\.ffns\.0\.", ".ffn."))


def detectron2_mask2former(classes: int, *, older: bool = False) -> State:
    """detectron2's Mask2Former with ResNet-50. older: as before the pixel decoder and the queries had their names."""
    state = {name: tensor for name, tensor in shapes_only(VITA).items() if not name.startswith("vita_")}
    state = with_rows(state, classes + 1, of=r"sem_seg_head\.predictor\.class_embed\..+|criterion\.empty_weight")
    return respelled(state, (r"\.pixel_decoder\.", "."), ("query_feat", "static_query")) if older else state


def coco_vita() -> State:
    """VITA's own pre-training on COCO, head included, 80 classes."""
    return with_rows(shapes_only(VITA), 81, of=r".*(class_embed\..+|empty_weight)")


ZOO: dict[str, Callable[[], State]] = {
    **{f"coco_kmax_msda_{backbone}": lambda backbone=backbone: coco_kmax_msda(backbone)
       for backbone in ("r50", "convnext_l", "convnextv2_l")},
    **{f"mmdet{release}_{task}": lambda classes=classes, release=release: mmdet_mask2former(classes, release=release)
       for release in (2, 3) for task, classes in (("instance", 80), ("panoptic", 133))},
    **{f"detectron2_{task}": lambda classes=classes: detectron2_mask2former(classes)
       for task, classes in (("instance", 80), ("panoptic", 133), ("semantic", 150))},
    "detectron2_older": lambda: detectron2_mask2former(80, older=True),
    "coco_vita": coco_vita,
}
