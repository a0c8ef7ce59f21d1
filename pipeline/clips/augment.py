"""Clip-consistent augmentation: drawn once per clip (or video), then applied alike to every frame, image and id map.

Only colours may be drawn for each frame, as the released MaXTron code draws them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from model.contracts import smallest_canvas
from pipeline.images import resize_image

_BRIGHTNESS = 32.0                      # ± on a scale of 0-255
_CONTRAST = _SATURATION = (0.5, 1.5)    # factors
_HUE = 36.0                             # ± degrees; 18 of OpenCV's 180 half-degrees

_YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_RGB = np.linalg.inv(_YIQ)


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """Ranges of the augmentation, and the canvas on which a batch lies.

    A fixed canvas (`pad_to` None) is `size` for every batch. With `pad_to`, a batch is padded to its own largest clip,
    as if every clip came alone: as in the official code, whose GPUs take one clip each. Points that a loss draws fall
    on the canvas of the batch.
    """

    size: tuple[int, int] | None                # height, width; larger frames are cropped to it. None: never cropped
    pad_to: int | None = None                   # sides of a batch's own canvas are multiples of it; None: `size`
    long_side: int | None = None                # pixels; frames that would be longer are scaled to it
    short_side: tuple[int, ...] = ()            # pixels; one is drawn for the frame's short side. (): the largest fit
    scale: tuple[float, float] = (0.3, 1.7)     # factors on that size
    crop: bool = True                           # crop at random if a frame does not fit; False: scale it to fit
    flip: float = 0.5                           # probabilities
    reverse: float = 0.5                        # of reversing time; used by `sampling.sample_clip`
    color: bool = True
    color_per_frame: bool = False               # draw the colours of each frame; False: once for the clip
    interpolation: Literal["halving", "opencv"] = "halving"     # see `Transform.interpolation`

    def __post_init__(self) -> None:
        if self.size is None and not (self.pad_to and self.short_side):
            raise ValueError("augment.size is null, so frames are neither cropped nor padded to one size; set "
                             "augment.short_side (pixels) and augment.pad_to (32), or give a size")
        if min(value for value in (self.pad_to, self.long_side, 1) if value is not None) < 1:
            raise ValueError(f"augment.pad_to is {self.pad_to} and augment.long_side {self.long_side}; give at least 1 "
                             "pixel, or null")
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"augment.size is {self.size}; give the network input as (height, width) in pixels")
        if min(self.short_side, default=1) < 1:
            raise ValueError(f"augment.short_side is {self.short_side}; give lengths in pixels, or () for the largest "
                             "size that fits")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"augment.scale is {self.scale}; give (smallest, largest), both above 0")
        for name in ("flip", "reverse"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name} is {getattr(self, name)}; give a probability between 0 and 1")

    def fit_factor(self, frame: tuple[int, int]) -> float:
        """The largest scale at which a frame (height, width) lies inside `size` and `long_side`; may be infinite."""
        inside = float("inf") if self.size is None else min(self.size[0] / frame[0], self.size[1] / frame[1])
        return inside if self.long_side is None else min(inside, self.long_side / max(frame))

    def canvas(self, frames: Iterable[tuple[int, int]]) -> tuple[int, int]:
        """Height and width to which frames of these sizes are padded together."""
        return self.size if self.pad_to is None else smallest_canvas(frames, multiple=self.pad_to)

    def largest_canvas(self, sources: Iterable[tuple[int, int]]) -> tuple[int, int]:
        """Height and width in which every canvas of clips from `sources` (height, width) lies."""
        if self.size is not None:
            return self.canvas([self.size])
        if self.long_side is not None:
            return self.canvas([(self.long_side, self.long_side)])
        factors = {source: self.scale[1] * max(self.short_side) / min(source) for source in sources}
        return self.canvas([(round(height * factor), round(width * factor))
                            for (height, width), factor in factors.items()])


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorJitter:
    """SSD's colour jitter as one affine map of RGB, applied in one pass.

    SSD changes hue and saturation in HSV, which costs as much as decoding the JPEG. Here, hue is a rotation about the
    grey axis and saturation a scaling towards the luma (YIQ), over the same ranges. Colours are rounded and clipped to
    0-255 once, at the end.
    """

    brightness: float = 0.0     # added, before the factors
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0            # degrees

    def matrix(self) -> np.ndarray:
        """3 4 float32, maps (colour, 1) -> colour."""
        cos = np.cos(np.radians(self.hue))
        sin = np.sin(np.radians(self.hue))
        chroma = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) * np.array([[1], [self.saturation],
                                                                                  [self.saturation]])
        turn = self.contrast * _RGB @ chroma @ _YIQ
        return np.column_stack([turn, turn @ np.full(3, self.brightness)]).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """One transform of a frame: `box` is cut out, scaled to `resized`, flipped, coloured, and padded right and bottom.

    The box consists of whole source pixels. Cutting first therefore gives the same distribution as scaling the whole
    frame first, up to edges rounded to source pixels, and image and ids are mapped exactly alike.
    """

    source: tuple[int, int]             # height, width of the frames for which it was drawn
    box: tuple[int, int, int, int]      # top, left, bottom, right in source pixels
    resized: tuple[int, int]            # height, width of the real pixels, at the top left of the result
    padded: tuple[int, int]             # height, width of the result
    flip: bool = False
    color: ColorJitter | None = None
    # How images are scaled, bilinear. halving: first by areas to less than twice the result, then OpenCV, for training;
    # opencv: OpenCV alone, which aliases, as mmcv does; pillow: over the whole source area, as detectron2 does, at 7
    # times the cost.
    interpolation: Literal["halving", "opencv", "pillow"] = "halving"
    angle: float = 0.0                  # degrees by which the camera turns clockwise about a point of the box; pixels
                                        # outside the frame become black and void
    pivot: tuple[float, float] = (0.5, 0.5)     # that point, y and x as fractions of the box
    cut_first: bool = False             # pixels outside the box become black and void too, when the camera turns

    def image(self, image: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """H W 3 uint8 of the source -> 3 H W uint8, zeros in the padding. `out`, if given, is overwritten in full."""
        self._check(image)
        if out is None:
            out = np.empty((3, *self.padded), dtype=np.uint8)
        top, left, bottom, right = self.box
        height, width = self.resized
        image = self._turned(image, cv2.INTER_LINEAR) if self.angle else image[top:bottom, left:right]
        grows = (bottom - top) * (right - left) <= height * width
        if grows:       # colours and flip commute with scaling, up to rounding, so use the smaller image
            image = self._recolor(image)
        if image.shape[:2] != self.resized:
            image = _SCALE[self.interpolation](image, height, width)
        if not grows:
            image = self._recolor(image)
        cv2.split(image, [plane[:height, :width] for plane in out])     # writes the planes in place
        out[:, height:] = 0         # only the padding, since clearing everything first costs a tenth of decoding
        out[:, :height, width:] = 0
        return out

    def ids(self, ids: np.ndarray, *, at: tuple[slice, slice] = (slice(None), slice(None))) -> np.ndarray:
        """H W uint8 or uint16 of the source -> H W, 0 in the padding. Takes the nearest pixel, so no new ids appear.

        at: the rows and columns of the result to compute; others are skipped.
        """
        self._check(ids)
        if self.angle:
            return self._turned_ids(ids)[at]
        top, left, bottom, right = self.box
        rows = _nearest(self.resized[0], bottom - top)[at[0]]
        columns = _nearest(self.resized[1], right - left)
        columns = (right - 1 - columns if self.flip else left + columns)[at[1]]
        out = np.zeros([len(range(side)[wanted]) for side, wanted in zip(self.padded, at)], dtype=ids.dtype)
        out[:len(rows), :len(columns)] = ids.take(top + rows, axis=0).take(columns, axis=1)
        return out

    def _turned_ids(self, ids: np.ndarray) -> np.ndarray:
        height, width = self.resized
        turned = self._turned(ids, cv2.INTER_NEAREST)
        out = np.zeros(self.padded, dtype=ids.dtype)
        out[:height, :width] = cv2.flip(turned, 1) if self.flip else turned
        return out

    def _turned(self, pixels: np.ndarray, interpolation: int) -> np.ndarray:
        """Cut out, turn and scale in one step, so that pixels are interpolated only once."""
        top, left, bottom, right = self.box
        if self.cut_first:
            pixels = np.ascontiguousarray(pixels[top:bottom, left:right])
            top, left, bottom, right = 0, 0, bottom - top, right - left
        height, width = self.resized
        cos = np.cos(np.radians(self.angle))
        sin = np.sin(np.radians(self.angle))
        turn = np.array([[cos, -sin], [sin, cos]]) * [(right - left) / width, (bottom - top) / height]
        y, x = self.pivot
        pivot = np.array([left + x * (right - left), top + y * (bottom - top)]) - 0.5   # pixel centres are integers
        shift = pivot - turn @ [x * width - 0.5, y * height - 0.5]
        return cv2.warpAffine(pixels, np.column_stack([turn, shift]), (width, height),
                              flags=interpolation | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT)

    def _recolor(self, image: np.ndarray) -> np.ndarray:
        if self.color is not None:
            image = cv2.transform(image, self.color.matrix())
        return cv2.flip(image, 1) if self.flip else image

    def _check(self, pixels: np.ndarray) -> None:
        if pixels.shape[:2] != self.source:
            raise ValueError(f"a frame has {pixels.shape[:2]} (height, width), but its video has {self.source}; all "
                             "frames of a video must have one size. Make the shards again from frames of one size")


def draw_transform(rng: np.random.Generator, config: AugmentConfig, source: tuple[int, int]) -> Transform:
    """Draw one transform for frames of `source` (height, width): large-scale jitter, crop, flip and SSD colours.

    The scale is relative to the largest size that fits (detectron2's ResizeScale, as in the released kMaX and MaXTron
    code): at 769x1345, a 720x1280 frame times 1.0 becomes 756x1345. With `short_side`, it is relative to that length
    (mmdetection's Resize): 720 times 1.0 is 720x1280.
    """
    height, width = source
    fit_factor = config.fit_factor(source)
    base = int(rng.choice(config.short_side)) / min(source) if config.short_side else fit_factor
    largest = config.scale[1] if config.crop else min(config.scale[1], fit_factor / base)
    factor = base * rng.uniform(min(config.scale[0], largest), largest)
    if config.long_side is not None:
        factor = min(factor, config.long_side / max(source))
    scaled = max(round(height * factor), 1), max(round(width * factor), 1)
    (top, bottom, rows), (left, right, columns) = (
        _draw_span(rng, *sides) for sides in zip(source, scaled, config.size or scaled))
    return Transform(source=source, box=(top, left, bottom, right), resized=(rows, columns),
                     padded=config.canvas([(rows, columns)]), flip=bool(rng.random() < config.flip),
                     color=draw_color(rng) if config.color else None, interpolation=config.interpolation)


def _draw_span(rng: np.random.Generator, side: int, scaled: int, limit: int) -> tuple[int, int, int]:
    """For one axis: first and last source pixel of the box, and the number of pixels in the result."""
    kept = min(scaled, limit)
    offset = int(rng.integers(scaled - kept + 1))
    first = min(round(offset * side / scaled), side - 1)
    return first, max(round((offset + kept) * side / scaled), first + 1), kept


def _nearest(pixels: int, source: int) -> np.ndarray:
    """The source pixel under the centre of each result pixel, in integer arithmetic."""
    return (2 * np.arange(pixels) + 1) * source // (2 * pixels)


def color_frames(rng: np.random.Generator, config: AugmentConfig, transforms: tuple[Transform, ...]
                 ) -> tuple[Transform, ...]:
    """The transforms of a clip, with new colours for every frame but the first if `color_per_frame` asks for them."""
    if not (config.color and config.color_per_frame):
        return transforms
    return (*transforms[:1], *(replace(transform, color=draw_color(rng)) for transform in transforms[1:]))


def draw_color(rng: np.random.Generator) -> ColorJitter | None:
    """Draw each of the four changes with probability one half; None if none is drawn."""
    is_used = rng.random(4) < 0.5
    values = (rng.uniform(-_BRIGHTNESS, _BRIGHTNESS), rng.uniform(*_CONTRAST), rng.uniform(*_SATURATION),
              rng.uniform(-_HUE, _HUE))
    chosen = {name: float(value) for name, value, used in
              zip(("brightness", "contrast", "saturation", "hue"), values, is_used) if used}
    return ColorJitter(**chosen) if chosen else None


def _scale_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear scaling. To shrink by two or more, halve by averaging first, so that small scales do not alias.

    Halving drops the last pixel of an odd side, which moves the far edge by less than a pixel of the result.
    """
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        half = image.shape[0] // 2, image.shape[1] // 2
        image = cv2.resize(image[:2 * half[0], :2 * half[1]], half[::-1], interpolation=cv2.INTER_AREA)
    return _resize_by_four(image, height, width)


def _resize_by_four(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear between the four nearest pixels."""
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


_SCALE = {"halving": _scale_image, "opencv": _resize_by_four, "pillow": resize_image}
