"""Resizing masks: one matrix per axis equals the chain of interpolations, and a tile equals its part of the whole."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from model.contracts import Geometry
from model.postprocess.resize import MaskResizer

GEOMETRIES = [
    Geometry(source=(26, 40), resized=(26, 40), padded=(33, 49)),      # odd input, fits
    Geometry(source=(26, 40), resized=(26, 40), padded=(32, 48)),      # even input, fits
    Geometry(source=(46, 80), resized=(28, 49), padded=(33, 49)),      # odd, was scaled down
    Geometry(source=(90, 60), resized=(32, 21), padded=(32, 48)),      # even, was scaled down
    Geometry(source=(20, 30), resized=(32, 48), padded=(33, 48)),      # was scaled up
    Geometry(source=(1, 1), resized=(1, 1), padded=(33, 33)),
]


def chain(masks, geometry):
    """The steps of the public code. masks: n h w."""
    corners = geometry.padded[1] % 2 == 1
    large = F.interpolate(masks[None], size=geometry.padded, mode="bilinear", align_corners=corners)
    large = large[..., :geometry.resized[0], :geometry.resized[1]]
    if geometry.resized != geometry.source:
        large = F.interpolate(large, size=geometry.source, mode="bilinear", align_corners=corners)
    return large[0]


def maps(geometry):
    return torch.randn(3, -(-geometry.padded[0] // 4), -(-geometry.padded[1] // 4))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_matrices_equal_the_chain_of_interpolations(geometry):
    masks = maps(geometry)
    assert_close(MaskResizer(geometry, size=tuple(masks.shape[1:]))(masks), chain(masks, geometry), atol=1e-5, rtol=0)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_tiles_cover_every_pixel_once_and_equal_the_whole(geometry):
    masks = maps(geometry)
    resizer = MaskResizer(geometry, size=tuple(masks.shape[1:]))
    whole = resizer(masks)
    seen = torch.zeros(geometry.source, dtype=torch.int)
    for rows, columns in resizer.tiles(height=7, width=11):
        seen[rows, columns] += 1
        assert_close(resizer.tile(masks, rows=rows, columns=columns), whole[:, rows, columns], atol=1e-6, rtol=0)
    assert (seen == 1).all()


def test_a_constant_map_stays_constant():
    for geometry in GEOMETRIES:
        resized = MaskResizer(geometry, size=(9, 13))(torch.full((2, 9, 13), 3.0))
        assert_close(resized, torch.full((2, *geometry.source), 3.0))


def test_frames_are_scaled_down_to_fit_and_never_up():
    assert Geometry.fit((720, 1280), padded=(769, 1345)).resized == (720, 1280)
    assert Geometry.fit((1080, 1920), padded=(769, 1345)).resized == (757, 1345)
    assert Geometry.fit((2000, 100), padded=(769, 1345)).resized == (769, 38)
    assert Geometry.fit((10, 10_000), padded=(33, 49)).resized == (1, 49)
    assert Geometry.fit((30, 60), padded=(33, 49)).resized == (24, 49)      # 24.5 is rounded to even


def test_small_frames_are_scaled_up_on_request():
    assert Geometry.fit((480, 640), padded=(1281, 1281), enlarge=True).resized == (961, 1281)
    assert Geometry.fit((1080, 1920), padded=(769, 1345), enlarge=True).resized == (757, 1345)


def test_a_map_of_another_size_and_a_frame_outside_the_input_are_refused():
    geometry = GEOMETRIES[0]
    with pytest.raises(ValueError, match="made for"):
        MaskResizer(geometry, size=(9, 13))(torch.zeros(2, 8, 13))
    with pytest.raises(ValueError, match="inside the network input"):
        MaskResizer(Geometry(source=(64, 64), resized=(64, 64), padded=(33, 49)), size=(9, 13))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_part_of_the_map_reaches_exactly_the_pixels_that_it_changes(geometry):
    size = tuple(-(-side // 4) for side in geometry.padded)
    resizer = MaskResizer(geometry, size=size)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        rows, columns = (slice(*sorted(torch.randperm(side + 1, generator=generator)[:2].tolist())) for side in size)
        part = torch.zeros(1, *size)
        part[:, rows, columns] = 1
        changed = resizer(part)[0] != 0
        reached = torch.zeros_like(changed)
        reached[resizer.reached(rows=rows, columns=columns)] = True
        assert torch.equal(reached, changed)
