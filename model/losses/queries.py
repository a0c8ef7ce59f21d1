"""The losses of queries against tubes that both stages share, and the sum of the terms of all layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from torch import Tensor

from model.losses.classes import class_loss
from model.losses.masks import mask_losses
from model.losses.matching import Matches
from model.losses.targets import PixelTargets


@dataclass(frozen=True, kw_only=True)
class QueryLossConfig:
    """Weights of the class and mask terms. A weight of 0 switches a term off."""

    class_weight: float
    dice_weight: float
    mask_weight: float                          # cross-entropy over queries
    alpha: tuple[float, float] = (0.75, 0.25)   # class loss of queries with and without a tube
    smallest_weight: float = 1e-5               # of a query, even if its mask or class was bad when it was matched

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith(("weight", "samples", "temperature")) and value < 0:
                raise ValueError(f"{type(self).__name__}.{field.name} is {value}; it must not be negative")

    @property
    def weights(self) -> dict[str, float]:
        """Term -> weight."""
        return {"class": self.class_weight, "mask": self.mask_weight, "dice": self.dice_weight}


def query_losses(class_logits: Tensor, mask_logits: Tensor, targets: PixelTargets, matches: Matches, *,
                 config: QueryLossConfig) -> dict[str, Tensor]:
    """class_logits b n classes+1, mask_logits b n p -> unweighted class, mask and dice losses (each b) by name."""
    losses = {}
    if config.class_weight:
        losses["class"] = class_loss(class_logits, targets, matches, alpha=config.alpha,
                                     smallest_weight=config.smallest_weight)
    if config.mask_weight or config.dice_weight:
        mask, dice = mask_losses(mask_logits, targets, matches, smallest_weight=config.smallest_weight)
        losses |= {"mask": mask} if config.mask_weight else {}
        losses |= {"dice": dice} if config.dice_weight else {}
    return losses


def weighted_sum(layers: Sequence[Mapping[str, Tensor]], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Weighted batch means by name, from the losses (b each) of the final prediction and of each auxiliary layer.

    The terms of the auxiliary layers are added up under the same names with `_aux`.
    """
    final, *auxiliary = layers
    total = {name: weights[name] * loss.mean() for name, loss in final.items()}
    for name in dict.fromkeys(name for layer in auxiliary for name in layer):
        total[f"{name}_aux"] = weights[name] * sum(layer[name] for layer in auxiliary).mean()
    return total
