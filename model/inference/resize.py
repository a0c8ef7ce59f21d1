"""How the frames of a video enter a network at test time: inside one fixed canvas, or each video at a size of its own.

Sources: detectron2's ResizeShortestEdge (VITA, Mask2Former) and mmcv's imrescale (Tube-Link, MaXTron on it), which
scale a frame by the same factor and round alike. They differ in the filter: detectron2 scales by Pillow, whose filter
covers the whole source area; mmcv by OpenCV, which reads four pixels and so aliases where frames shrink.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.contracts import Geometry, smallest_canvas

Interpolation = Literal["pillow", "opencv"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedCanvas:
    """One network input for all videos: frames that do not fit are scaled down, all are padded."""

    size: tuple[int, int]       # height, width, pixels
    enlarge: bool = False       # scale small frames up too

    @property
    def interpolation(self) -> Interpolation:
        """Frames are scaled by Pillow."""
        return "pillow"

    def geometry(self, source: tuple[int, int]) -> Geometry:
        """How frames of `source` (height, width) lie in the network input."""
        return Geometry.fit(source, padded=self.size, enlarge=self.enlarge)


@dataclass(frozen=True, kw_only=True)
class ResizeConfig:
    """Whole frames by their short side; the network input is the frame, padded to a multiple.

    A box of 640x360 in mmcv is `short_side=360, long_side=640`: it turns with the frame.
    """

    short_side: int | None = None   # pixels, smaller frames are enlarged to it; None: frames keep their size
    long_side: int | None = None    # at most, pixels; a longer frame has a smaller short side. None: any length
    pad_to: int = 32                # sides are padded to the next multiple of it
    interpolation: Interpolation = "pillow"

    def __post_init__(self) -> None:
        for name in ("short_side", "long_side", "pad_to"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"inference.resize.{name} is {value}; give a length of at least 1 pixel"
                                 f"{'' if name == 'pad_to' else ', or null'}")

    def geometry(self, source: tuple[int, int]) -> Geometry:
        """How frames of `source` (height, width) lie in the network input. Halves of pixels are rounded up."""
        factor = 1.0 if self.short_side is None else self.short_side / min(source)
        if self.long_side is not None:
            factor = min(factor, self.long_side / max(source))
        height, width = (max(int(side * factor + 0.5), 1) for side in source)
        return Geometry(source=source, resized=(height, width),
                        padded=smallest_canvas([(height, width)], multiple=self.pad_to))
