"""The trajectory of a point on a moving square follows it where attention compares colours, and not where it is random.

Measured by these tests, in frames of 96 pixels with cells of 8: the track of the constructed layer is 0.0 pixels from
the centre of the square on average, that of an untrained one 32.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from model.contracts import Geometry
from model.layers.axial_trajectory import TrajectoryLayer
from pipeline.visualise.trajectory import drawn_track, strides_of, track_of

SIZE = 96
STRIDE = 8
SQUARE = 32
STEP = 8                # pixels that the square moves right and down in each frame
FRAMES = 3
GEOMETRY = Geometry(source=(SIZE, SIZE), resized=(SIZE, SIZE), padded=(SIZE, SIZE))


def frames() -> list[np.ndarray]:
    pictures = [np.full((SIZE, SIZE, 3), (40, 120, 60), np.uint8) for _ in range(FRAMES)]
    for index, picture in enumerate(pictures):
        start = STEP * index
        picture[start:start + SQUARE, start:start + SQUARE] = (220, 40, 40)
    return pictures


def centers() -> np.ndarray:
    """FRAMES 2: x, y of the square."""
    return np.array([[SQUARE / 2 + STEP * index] * 2 for index in range(FRAMES)])


def follower(kind: str, *, constructed: bool) -> TrajectoryLayer:
    """A layer on colours; the constructed one attends to what has the colour of the point."""
    torch.manual_seed(0)
    layer = TrajectoryLayer(4, heads=1, ffn=8, kind=kind).eval()
    for attend in layer.passes.values() if constructed else ():
        for linear in (attend.q, attend.k):
            nn.init.zeros_(linear.bias)
            linear.weight.data = 40 * torch.eye(4)
        nn.init.zeros_(attend.proj.weight)          # so that the second pass reads colours too
        nn.init.zeros_(attend.proj.bias)
    return layer


@torch.no_grad()
def maps_of(kind: str, *, constructed: bool) -> dict[str, torch.Tensor]:
    pixels = rearrange(torch.from_numpy(np.stack(frames())).float(), "t h w c -> t c h w")
    cells = F.avg_pool2d((pixels - pixels.mean((0, 2, 3), keepdim=True)) / 255, STRIDE)
    cells = rearrange(F.pad(cells, (0, 0, 0, 0, 0, 1)), "t c h w -> 1 t h w c")        # a fourth channel, of zeros
    maps: dict[str, torch.Tensor] = {}
    follower(kind, constructed=constructed)(cells, torch.zeros_like(cells), attention=maps)
    return {f"stride{STRIDE}.{name}": value for name, value in maps.items()}


def test_an_axial_track_loses_an_object_that_leaves_the_row_and_column_of_the_point():
    assert distance("axial", constructed=True, frame=2) > 10


def distance(kind: str, *, constructed: bool, frame: int = 0) -> float:
    """Mean pixels between the track of the square's centre in a frame, and the square, over all frames."""
    track = track_of(maps_of(kind, constructed=constructed), stride=STRIDE, point=tuple(centers()[frame]), frame=frame,
                     geometry=GEOMETRY)
    return float(np.linalg.norm(np.array(track.points()) - centers(), axis=1).mean())


@pytest.mark.parametrize(("kind", "frame"), [("axial", 0), ("axial", 1), ("full", 0), ("full", 1), ("full", 2)])
def test_a_track_follows_a_moving_square_and_an_untrained_one_does_not(kind, frame):
    assert distance(kind, constructed=True, frame=frame) < 1
    assert distance(kind, constructed=False, frame=frame) > 20


def test_each_pass_sums_to_one_in_every_frame_and_the_joined_track_is_their_product():
    track = track_of(maps_of("axial", constructed=True), stride=STRIDE, point=(16, 16), frame=0, geometry=GEOMETRY)
    cells = SIZE // STRIDE
    assert track.height.shape == track.width.shape == (FRAMES, cells)
    for values in (track.height.sum(1), track.width.sum(1), track.joined.sum((1, 2))):
        torch.testing.assert_close(values, torch.ones(FRAMES))
    torch.testing.assert_close(track.joined.sum(2), track.height)


def test_places_are_in_pixels_of_the_source_whatever_the_network_input_is():
    """The frame of twice the size fills only the left half of the input of the network."""
    maps = maps_of("axial", constructed=True)
    geometry = Geometry(source=(2 * SIZE, SIZE), resized=(SIZE, SIZE // 2), padded=(SIZE, SIZE))
    track = track_of(maps, stride=STRIDE, point=(32, 32), frame=0, geometry=geometry)
    np.testing.assert_allclose(track.points(), 2 * centers(), atol=10)


def test_the_picture_has_a_row_for_each_pass_and_marks_the_point():
    track = track_of(maps_of("axial", constructed=True), stride=STRIDE, point=(24, 24), frame=1, geometry=GEOMETRY)
    picture = drawn_track(track, frames(), (24, 24))
    assert picture.shape == (4 * 240, FRAMES * 240, 3)
    assert picture[60, 240 + 60].tolist() == [255, 255, 255]
    full = track_of(maps_of("full", constructed=True), stride=STRIDE, point=(24, 24), frame=1, geometry=GEOMETRY)
    assert drawn_track(full, frames(), (24, 24)).shape == (2 * 240, FRAMES * 240, 3)


def test_a_point_outside_the_frame_is_refused():
    with pytest.raises(ValueError, match="96,5 is outside the frame of 96x96"):
        track_of(maps_of("axial", constructed=True), stride=STRIDE, point=(96, 5), frame=0, geometry=GEOMETRY)


def test_the_strides_are_those_with_attention_between_frames():
    assert strides_of({"stride32.height": 0, "stride16.height": 0, "stride16.width": 0, "time": 0}) == [16, 32]
