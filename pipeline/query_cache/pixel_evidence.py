"""Pixels of a clip that are kept for stage two, and the number of pixels that each one stands for.

The losses of stage two consist of sums over pixels. A pixel drawn at random from a piece of the clip stands for all
pixels of that piece, so every sum is unbiased. Pieces follow the tubes, which makes the sums of each tube accurate:
every tube gets its share, however small it is, and the weights of its pixels add up to exactly its area.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.labels import FIRST_OVERLAP
from pipeline.errors import BadInput

EQUAL_PART = {"balanced": 1.0, "mixed": 0.5}     # fraction of pixels shared equally by the tubes; the rest by area


@dataclass(frozen=True, kw_only=True)
class EvidenceConfig:
    """How many pixels of a clip are stored, and how they are chosen.

    Cosine between the loss gradient of a sample and that of all 1152 pixels per clip, as the mean of 12 draws of 64 /
    256 pixels in the clips of this file's test: balanced 0.982 / 0.996, mixed 0.982 / 0.996, uniform 0.953 / 0.993.
    """

    pixels: int = 256       # per clip at stride 4; all pixels if the clip has fewer
    strategy: Literal["balanced", "mixed", "uniform", "dense"] = "balanced"
    # 1: pixels of whole frames at the size of the network input, without padding; between the pixels of stride 4,
    # features are interpolated as masks are at inference. For scores, at test time alone.
    stride: Literal[1, 4] = 4

    def __post_init__(self) -> None:
        if self.strategy not in ("balanced", "mixed", "uniform", "dense"):
            raise ValueError(f"evidence strategy {self.strategy!r} is unknown; choose balanced (equal shares for every "
                             "tube and void), mixed (half balanced, half by area), uniform or dense (every pixel)")
        if self.stride not in (1, 4):
            raise ValueError(f"evidence.stride is {self.stride}; set it to 4, or to 1 for scores")
        if self.pixels < 1:
            raise ValueError(f"cache.evidence.pixels is {self.pixels}, and training needs at least one; set it to 64 "
                             "or more")


def draw_evidence(tubes: np.ndarray, *, rng: np.random.Generator, config: EvidenceConfig
                  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tubes t h w (stride 4) -> positions p 3 int16 (t, y, x), tubes p int32, weights p float32.

    In the input, -1 is void or padding, and lower values are overlaps, each of which counts as a tube of its own here.

    The pixels of a tube (with "uniform": of the clip) are cut in raster order into nearly equal pieces, one for each of
    its samples. One pixel of each piece is drawn and stands for the whole piece. This is unbiased and takes no pixel
    twice; drawing every A/n-th pixel instead could fall in step with the rows. The result is in raster order.
    Raises BadInput "too-many-tubes" when there are more tubes than pixels, so that no sample could show all of them.
    """
    flat = tubes.ravel()
    if config.strategy == "dense" or config.pixels >= flat.size:
        areas = counts = np.array([flat.size])
        order = np.arange(flat.size)
    elif config.strategy == "uniform":
        areas = np.array([flat.size])
        counts = np.array([config.pixels])
        order = np.arange(flat.size)
    else:
        areas = np.unique(flat, return_counts=True)[1]
        order = flat.argsort(kind="stable")
        counts = share_out(areas, pixels=config.pixels, equal_part=EQUAL_PART[config.strategy])
    sizes = np.concatenate([np.diff(np.arange(count + 1) * area // count) for area, count in zip(areas, counts)])
    drawn = order[sizes.cumsum() - sizes + rng.integers(sizes)]
    raster = drawn.argsort()
    pixels = drawn[raster]
    positions = np.stack(np.unravel_index(pixels, tubes.shape), 1).astype(np.int16)
    return positions, flat[pixels].astype(np.int32), sizes[raster].astype(np.float32)


def share_out(areas: np.ndarray, *, pixels: int, equal_part: float) -> np.ndarray:
    """areas s of the tubes and void -> number of pixels for each, s; at least one, at most all, `pixels` in total."""
    if len(areas) > pixels:
        raise BadInput("too-many-tubes", f"{pixels} pixels cannot represent the {len(areas)} tubes, overlaps and void "
                       "of a clip.", cure=f"Set cache.evidence.pixels to at least {2 * len(areas)}.")
    counts = np.ones_like(areas)
    demand = equal_part / len(areas) + (1 - equal_part) * areas / areas.sum()
    while left := pixels - counts.sum():
        open_demand = demand * (counts < areas)
        more = np.floor(left * open_demand / open_demand.sum()).astype(areas.dtype)
        if not more.any():      # too few pixels for another round: the largest areas get one each
            more[np.lexsort((-areas, counts >= areas))[:left]] = 1
        counts = np.minimum(counts + more, areas)
    return counts


def tube_areas(tubes: np.ndarray, *, count: int, overlaps: Sequence[Sequence[int]] = ()) -> np.ndarray:
    """tubes t h w with -1 void, -2 - s overlap s -> m int64: exact number of pixels of each of `count` tubes.

    overlaps: the tubes that share the pixels of each overlap; the pixels count for all of them.
    """
    below = len(overlaps) + 1       # values below 0: void and overlaps
    pixels = np.bincount(tubes.ravel().astype(np.int64) + below, minlength=count + below)
    areas = pixels[below:]
    for index, members in enumerate(overlaps):
        areas[list(members)] += pixels[below + FIRST_OVERLAP - index]
    return areas

