"""Sizes of training clips and of test frames are the official ones: 2,000 draws of each family against its plain rule.

With 2,000 draws a share is known to 0.0112 (one standard deviation at most), and the mean of a value between 0 and 1
too; the tolerance of every comparison of shares is four times that of the difference of two such numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from jobs.config import from_json, override, to_json
from jobs.recipes import RECIPES, find_recipe
from model.families import family_of
from model.inference import InferenceConfig
from pipeline.clips import draw_transform

DRAWS = 2000
TOLERANCE = 4 * 2 ** 0.5 * 0.5 / DRAWS ** 0.5       # 0.063
LOW = range(288, 513, 32)
HIGH = range(480, 801, 32)
WIDE = (720, 1280)
UPRIGHT = (1280, 720)
OLDER = (480, 640)
KITTI = ((375, 1242), (370, 1226))
Size = tuple[int, int]
Drawn = tuple[Size, Size, Size]         # the scaled frame, what a crop keeps of it, and what that is padded to


def to_multiple(size: Size) -> Size:
    return tuple(-(-side // 32) * 32 for side in size)


def official_youtube_vis(rng: np.random.Generator, source: Size) -> Drawn:
    """mmcv: the short side is one of 288 ... 512; nothing is cropped; padded to multiples of 32."""
    factor = rng.choice(LOW) / min(source)
    scaled = tuple(int(side * factor + 0.5) for side in source)
    return scaled, scaled, to_multiple(scaled)


def official_ovis(rng: np.random.Generator, source: Size) -> Drawn:
    """The short side is one of 480 ... 800, and a crop of 384x640 is taken of it, or what is there of it."""
    factor = rng.choice(HIGH) / min(source)
    scaled = tuple(int(side * factor + 0.5) for side in source)
    kept = min(scaled[0], 384), min(scaled[1], 640)
    return scaled, kept, to_multiple(kept)


def official_vita(rng: np.random.Generator, source: Size) -> Drawn:
    """detectron2: the short side is one of 288 ... 512, unless the long side would be above 768."""
    factor = min(rng.choice(LOW) / min(source), 768 / max(source))
    scaled = tuple(int(side * factor + 0.5) for side in source)
    return scaled, scaled, to_multiple(scaled)


def official_square(short_side: int, crop: int) -> Callable[[np.random.Generator, Size], Drawn]:
    """Tube-Link's panoptic and semantic video: a short side times 1 to 2, and a square of it."""
    def rule(rng: np.random.Generator, source: Size) -> Drawn:
        factor = rng.uniform(1, 2) * short_side / min(source)
        scaled = tuple(int(side * factor + 0.5) for side in source)
        kept = tuple(min(side, crop) for side in scaled)
        return scaled, kept, (crop, crop)
    return rule


def official_kitti(rng: np.random.Generator, source: Size) -> Drawn:
    factor = rng.uniform(1, 2) * min(384 / min(source), 1248 / max(source))
    scaled = tuple(int(side * factor + 0.5) for side in source)
    return scaled, (min(scaled[0], 384), min(scaled[1], 1248)), (384, 1248)


def official_large_scale_jitter(size: Size, low: float, high: float) -> Callable[[np.random.Generator, Size], Drawn]:
    """The largest scale that fits times low to high; cropped and padded to one size."""
    def rule(rng: np.random.Generator, source: Size) -> Drawn:
        factor = rng.uniform(low, high) * min(size[0] / source[0], size[1] / source[1])
        scaled = tuple(int(side * factor + 0.5) for side in source)
        return scaled, tuple(map(min, scaled, size)), size
    return rule


RULES = {
    "youtube_vis_2019_tube_link_r50": official_youtube_vis,
    "youtube_vis_2021_tube_link_swin_l_near_online": official_youtube_vis,
    "ovis_tube_link_r50": official_ovis, "ovis_tube_link_swin_l_near_online": official_ovis,
    "youtube_vis_2019_vita_r50": official_vita, "ovis_vita_swin_l": official_vita,
    "vipseg_tube_link_r50": official_square(720, 736), "vspw_tube_link_r50": official_square(480, 480),
    "kitti_step_tube_link_r50": official_kitti,
    "coco_mask2former_instance_r50": official_large_scale_jitter((1024, 1024), 0.1, 2.0),
    "coco_kmax_r50": official_large_scale_jitter((1281, 1281), 0.2, 2.0),
    "vipseg_video_kmax_r50": official_large_scale_jitter((769, 1345), 0.3, 1.7),
}


def ours(name: str, source: Size) -> list[Drawn]:
    augment = find_recipe(name).stage_one.input.augment
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        transform = draw_transform(rng, augment, source)
        top, left, bottom, right = transform.box
        factors = [kept / side for kept, side in zip(transform.resized, (bottom - top, right - left))]
        assert factors[0] == pytest.approx(factors[1], rel=0.05)     # boxes consist of whole source pixels
        scaled = tuple(max(kept, round(side * max(factors))) for kept, side in zip(transform.resized, source))
        drawn.append((scaled, transform.resized, transform.padded))
    return drawn


def share(part: Size, whole: Size) -> float:
    return part[0] * part[1] / (whole[0] * whole[1])


@pytest.mark.parametrize(("name", "source"), [
    (name, source) for name in RULES for source in ((WIDE, UPRIGHT, OLDER) if "kitti" not in name else KITTI)])
def test_scale_crop_and_real_pixels_are_distributed_as_in_the_official_code(name, source):
    rng = np.random.default_rng(1)
    rule = RULES[name]
    official = [rule(rng, source) for _ in range(DRAWS)]
    drawn = ours(name, source)
    for statistic in (lambda d: min(share(d[1], d[0]), 1.0),                    # kept by the crop
                      lambda d: share(d[1], d[2])):                             # real on the canvas
        values = [np.array([statistic(one) for one in side]) for side in (drawn, official)]
        assert values[0].mean() == pytest.approx(values[1].mean(), abs=TOLERANCE)
        assert np.quantile(values[0], (0.1, 0.5, 0.9)) == pytest.approx(np.quantile(values[1], (0.1, 0.5, 0.9)),
                                                                        abs=2 * TOLERANCE)
    short = [np.array([min(one[0]) for one in side]) for side in (drawn, official)]
    assert short[0].mean() == pytest.approx(short[1].mean(), rel=TOLERANCE)


@pytest.mark.parametrize("source", [WIDE, UPRIGHT, OLDER], ids=["wide", "upright", "older"])
@pytest.mark.parametrize("name", [name for name in RULES if RULES[name] in (official_youtube_vis, official_vita)])
def test_clips_without_a_crop_have_exactly_the_official_sizes_equally_often(name, source):
    rng = np.random.default_rng(1)
    official = Counter(RULES[name](rng, source)[1:] for _ in range(DRAWS))
    drawn = Counter(one[1:] for one in ours(name, source))
    assert drawn.keys() == official.keys()
    for sizes, count in official.items():
        assert drawn[sizes] == pytest.approx(count, abs=DRAWS * TOLERANCE)


BOX_854 = {WIDE: (480, 853), UPRIGHT: (853, 480), OLDER: (480, 640)}
BOX_640 = {WIDE: (360, 640), UPRIGHT: (640, 360), OLDER: (360, 480)}
SHORT_448 = {WIDE: (448, 796), UPRIGHT: (796, 448), OLDER: (448, 597)}
SHORT_800 = {WIDE: (750, 1333), UPRIGHT: (1333, 750), OLDER: (800, 1067)}
OWN = {WIDE: WIDE, UPRIGHT: UPRIGHT, OLDER: OLDER}


@pytest.mark.parametrize(("name", "sizes", "interpolation"), [
    ("youtube_vis_2019_tube_link_r50", BOX_854, "opencv"), ("youtube_vis_2021_tube_link_swin_l", BOX_854, "opencv"),
    ("youtube_vis_2021_tube_link_r50_near_online", BOX_640, "opencv"),
    ("youtube_vis_2022_tube_link_swin_l_offline", BOX_640, "opencv"), ("ovis_tube_link_r50", BOX_640, "opencv"),
    ("ovis_tube_link_swin_l_near_online", BOX_640, "opencv"), ("youtube_vis_2019_vita_r50", BOX_640, "pillow"),
    ("youtube_vis_2019_vita_r50_frozen", BOX_640, "pillow"), ("ovis_vita_swin_l", SHORT_448, "pillow"),
    ("vipseg_tube_link_r50", OWN, "pillow"), ("vspw_tube_link_swin_l", OWN, "pillow"),
    ("coco_mask2former_panoptic_swin_l", SHORT_800, "opencv"),
])
def test_frames_are_tested_at_the_official_sizes(name, sizes, interpolation):
    resize = find_recipe(name).inference.resize
    assert {source: resize.geometry(source).resized for source in sizes} == sizes
    assert resize.interpolation == interpolation
    assert resize.pad_to == 32


@pytest.mark.parametrize("name", RECIPES)
def test_video_kmax_keeps_one_odd_size_and_the_others_take_multiples_of_32(name):
    recipe = find_recipe(name)
    augment = recipe.stage_one.input.augment
    if family_of(recipe.stage_one.segmenter).fixed_canvas:
        assert augment.pad_to is None
        assert recipe.inference.resize is None
        if recipe.world is None:
            assert {side % 32 for side in augment.size} == {1}
    else:
        assert augment.pad_to in (None, 32)
        assert augment.size is None or not any(side % 32 for side in augment.size)


@pytest.mark.parametrize(("name", "changes", "complaint"), [
    ("tiny", ["stage_one.input.augment.pad_to=32"], r"one size only.* set stage_one\.input\.augment\.pad_to=null"),
    ("tiny", ['inference.resize={"short_side": 64}'], r"frames of one size only.* set inference\.resize=null"),
    ("tiny", ["stage_one.input.augment.size=[64,65]"], r"both 1 \+ 32 k|both 32 k"),
    ("tiny", ["stage_one.input.augment.size=[80,80]"], r"the next size is \(96, 96\)"),
    ("tiny_vis", ["stage_one.input.augment.size=[65,65]"], "tube_link takes sides that are both 32 k"),
    ("tiny_vis", ["stage_one.input.augment.pad_to=16"], "pad_to is 16; set it to 32"),
    ("tiny_vis", ['cache.augment={"size": [64, 80]}'], "cache.augment.size"),
    ("tiny_vis", ["stage_one.input.augment.size=null"], "set augment.short_side"),
    ("youtube_vis_2019_tube_link_r50", ["inference.resize=null"], "leaves frames no size at test time"),
    ("tiny_vis", ['inference.resize={"short_side": 64}', "cache.evidence.strategy=dense"], "keeps all pixels"),
])
def test_a_canvas_that_a_network_cannot_take_is_refused_before_anything_is_read(name, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        override(find_recipe(name), changes)


def test_settings_of_an_earlier_version_mean_what_they_meant():
    """They have no rule for whole frames, and their clips lie on one canvas."""
    stored = to_json(InferenceConfig(enlarge=True))
    del stored["resize"]
    assert from_json(InferenceConfig, stored) == InferenceConfig(enlarge=True)
    one = find_recipe("tiny").stage_one
    stored = to_json(one)
    for name in ("pad_to", "long_side", "interpolation"):
        del stored["input"]["augment"][name]
    assert from_json(type(one), stored) == one
