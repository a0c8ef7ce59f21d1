"""Losses of both stages. A config is the member of a union that its `kind` names; its `build()` gives the criterion."""

from __future__ import annotations

from model.losses.cross_clip import CrossClipLossConfig, MaskCrossClipLossConfig
from model.losses.kmax import KMaxLossConfig
from model.losses.mask2former import Mask2FormerLossConfig
from model.losses.vita import VitaLossConfig

ClipLossConfig = KMaxLossConfig | Mask2FormerLossConfig                                       # of stage one
VideoLossConfig = CrossClipLossConfig | MaskCrossClipLossConfig | VitaLossConfig              # of stage two
