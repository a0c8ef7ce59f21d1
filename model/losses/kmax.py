"""The stage-one criterion: kMaX-DeepLab (arXiv 2207.04044) on clips, as MaXTron trains it (arXiv 2311.18537 v1).

1. Match queries and ground-truth tubes once, by the final prediction. 2. Supervise every decoder layer with that match.
Formulas follow `maxtron_deeplab/modeling/wc_criterion.py` in TACJu/MaXTron and `kmax_deeplab/modeling/criterion.py` in
bytedance/kmax-deeplab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from model.contracts import ClipPrediction, ClipTargets, LayerPrediction
from model.losses.matching import Matches, match_queries
from model.losses.pixels import discrimination_loss, rarity, sample_pixels, semantic_loss, strided_positions
from model.losses.points import Draw, uniform
from model.losses.queries import QueryLossConfig, query_losses, weighted_sum
from model.losses.targets import PixelTargets, clip_targets


@dataclass(frozen=True, kw_only=True)
class KMaxLossConfig(QueryLossConfig):
    """Defaults: MaXTron near-online with ResNet-50 on VIPSeg. COCO: 3, 3, 0.3, temperatures 1.5 and 2.0."""

    kind: Literal["kmax"] = "kmax"
    class_weight: float = 4.0
    dice_weight: float = 5.0
    mask_weight: float = 0.1                # 0.01 for ConvNeXt-L
    pixel_weight: float = 1.0               # instance discrimination
    semantic_weight: float = 1.0            # final prediction only, and only where the segmenter has that head
    pixel_samples: int = 4096               # pixels per clip and layer; all where the clip has fewer
    semantic_samples: int = 4096            # pixels per clip; 0: every pixel
    pixel_temperature: float = 1.8          # how strongly pixels of small tubes are preferred; 0: not at all
    semantic_temperature: float = 2.4
    similarity_temperature: float = 0.3     # cosine similarities are divided by it
    share_matching: bool = True             # every layer uses the match of the final prediction
    void_counts: bool = False               # the dice of the loss and of the matching counts void
    normalise_overlaps: bool = False        # tubes that overlap share the pixel (kMaX-DeepLab); nothing for panoptic
    official_compat: bool = False           # kMaX-DeepLab's image code forgets `void_counts` in its matching

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pixel_weight and not (self.pixel_samples and self.similarity_temperature):
            raise ValueError(f"KMaxLossConfig: the pixel loss has weight {self.pixel_weight}, but pixel_samples is "
                             f"{self.pixel_samples} and similarity_temperature {self.similarity_temperature}; both "
                             "must be above 0. pixel_weight=0 switches the loss off")

    @property
    def weights(self) -> dict[str, float]:
        """Term -> weight."""
        return {**super().weights, "pixel": self.pixel_weight, "semantic": self.semantic_weight}

    def build(self) -> KMaxCriterion:
        """The criterion with these settings."""
        return KMaxCriterion(self)


class KMaxCriterion:
    """Weighted losses of a batch of clips by name; their sum is the loss.

    Names: class, mask, dice, pixel, semantic for the final prediction, the same with `_aux` for the sum over the
    decoder layers. Each is the mean over the clips of the batch, computed in float32 even under autocast.
    """

    def __init__(self, config: KMaxLossConfig) -> None:
        self.config = config

    def __call__(self, prediction: ClipPrediction, targets: Sequence[ClipTargets], *,
                 generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """prediction with its auxiliary layers, b targets -> weighted scalars.

        `generator` draws the sampled pixels; it may live on the CPU. A clip may have no tubes, and it may have more
        tubes than there are queries: pixels of the tubes without a query then count as void.
        """
        draw = uniform(prediction.mask_logits.device, generator=generator)
        return weighted_sum(self.layer_losses(prediction, targets, draw=draw), self.config.weights)

    def layer_losses(self, prediction: ClipPrediction, targets: Sequence[ClipTargets], *,
                     draw: Draw) -> list[dict[str, Tensor]]:
        """Unweighted losses (each b) by name: of the final prediction, then of each auxiliary layer.

        There is one draw per sample of pixels, in the order final discrimination, final semantic, discrimination of
        each auxiliary layer.
        """
        with torch.autocast(prediction.mask_logits.device.type, enabled=False):
            clips = self._targets(targets)
            truth = self._match(prediction, clips)
            losses = [self._layer(prediction, truth, draw)]
            if prediction.semantic_logits is not None and self.config.semantic_weight:
                losses[0]["semantic"] = self._semantic(prediction, clips, truth, draw)
            for layer in prediction.auxiliary:
                if not self.config.share_matching:
                    truth = self._match(layer, clips)
                losses.append(self._layer(layer, truth, draw))
        return losses

    def _targets(self, targets: Sequence[ClipTargets]) -> PixelTargets:
        clips = clip_targets(targets)
        return clips.counting_void() if self.config.void_counts else clips

    def _match(self, layer: ClipPrediction | LayerPrediction, clips: PixelTargets) -> _Truth:
        matches = match_queries(layer.class_logits, flat(layer.mask_logits),
                                clips.ignoring_void() if self.config.official_compat else clips)
        if clips.masks.shape[1] > layer.class_logits.shape[1]:
            clips = clips.keeping(matches.is_matched)
        if self.config.normalise_overlaps:
            clips = clips.sharing_pixels()
        return _Truth(targets=clips, matches=matches, rarity=rarity(clips))

    def _layer(self, layer: ClipPrediction | LayerPrediction, truth: _Truth, draw: Draw) -> dict[str, Tensor]:
        config = self.config
        losses = query_losses(layer.class_logits, flat(layer.mask_logits), truth.targets, truth.matches, config=config)
        if config.pixel_weight:
            if layer.pixel_features is None:
                raise ValueError("the pixel loss needs the pixel features of every supervised layer, but a layer has "
                                 "none. Set pixel_weight=0, or let the segmenter return them")
            positions = truth.sample(config.pixel_samples, temperature=config.pixel_temperature, draw=draw)
            losses["pixel"] = discrimination_loss(flat(layer.pixel_features), truth.targets, positions,
                                                  temperature=config.similarity_temperature)
        return losses

    def _semantic(self, prediction: ClipPrediction, clips: PixelTargets, truth: _Truth, draw: Draw) -> Tensor:
        """The loss of the semantic logits, which may be coarser than the masks: targets are then read with a stride.

        Labels come from all tubes: pixels of a tube without a query are drawn like void, but they have a class.
        """
        config = self.config
        logits = prediction.semantic_logits
        fine = prediction.mask_logits.shape[2:]
        if logits.shape[2:] != fine:
            pixels = strided_positions(fine, logits.shape[2:]).to(logits.device)
            clips = clips.at(pixels)
            truth = truth.at(pixels)
        positions = None
        if config.semantic_samples:
            positions = truth.sample(config.semantic_samples, temperature=config.semantic_temperature, draw=draw)
        return semantic_loss(flat(logits), clips, positions)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Truth:
    """The ground truth as one match sees it; all layers share it when they share the match."""

    targets: PixelTargets
    matches: Matches
    rarity: Tensor      # b p

    def at(self, pixels: Tensor) -> _Truth:
        """The same on some positions (s) of the pixel axis."""
        return _Truth(targets=self.targets.at(pixels), matches=self.matches, rarity=self.rarity[:, pixels])

    def sample(self, count: int, *, temperature: float, draw: Draw) -> Tensor:
        """Positions b s of sampled pixels."""
        return sample_pixels(self.rarity, self.targets, count=count, temperature=temperature,
                             uniform=draw(*self.rarity.shape))


def flat(maps: Tensor) -> Tensor:
    """b x t h w -> b x p."""
    return rearrange(maps, "b x t h w -> b x (t h w)")
