"""Recipes draw the clips that the official code draws: 2,000 draws of each family against its plain rule.

A share p is known from 2,000 draws to sqrt(p (1 - p) / 2000), one standard deviation; five of them are allowed, and
sqrt(2) times as many where the official rule is drawn too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from jobs.recipes import RECIPES, find_recipe
from model.labels import ClassInfo, ClassTable
from pipeline.clips.augment import ColorJitter
from pipeline.records import Segment
from pipeline.shards.format import StoredFrame, StoredVideo
from pipeline.training_input import InputConfig, Stills, plan_clip, training_plan
from pipeline.training_input.copy_paste import choose_segments
from pipeline.training_input.training_clips import ClipPlan
from tests.pipeline.shards.index_files import HeldVideos

DRAWS = 2000
LENGTHS = (2, 3, 5, 8, 13, 21, 34, 60)
CLASSES = ClassTable("three", tuple(ClassInfo(index, f"class {index}", index > 0, (0, 0, index)) for index in range(3)))
SIZE = (720, 1280)
STILL = (480, 640)


def near(share: float, official: float, *, drawn_too: bool = False) -> bool:
    """Whether a share of 2,000 draws is the official one, which may be known from as many draws."""
    spread = max(official * (1 - official), 1e-9) * (2 if drawn_too else 1)
    return abs(share - official) <= 5 * (spread / DRAWS) ** 0.5


def mean_near(ours: Iterable[float], official: Iterable[float]) -> bool:
    """The means of 2,000 values from 0 to 1 each, which deviate at most as much as shares of one half."""
    return abs(np.mean(list(ours)) - np.mean(list(official))) <= 5 * 2 ** 0.5 * 0.5 / DRAWS ** 0.5


def videos_of(lengths: Iterable[int], size: tuple[int, int] = SIZE) -> SimpleNamespace:
    """What a plan has to know of a shard set."""
    videos = HeldVideos(StoredVideo(
        index=index, video_id=f"video {index}", shard=0, height=size[0], width=size[1],
        frames=tuple(StoredFrame(name=f"{frame}", image=(0, 0), label=(0, 0)) for frame in range(length)),
        segments=(Segment(id=1, class_index=1),), source_ids=(1,)) for index, length in enumerate(lengths))
    shards = SimpleNamespace(videos=videos, folder="data", classes=CLASSES)
    shards.with_labels = lambda: shards         # all frames have one
    return shards


def drawn(config: InputConfig, lengths: Iterable[int] = LENGTHS) -> list[ClipPlan]:
    config = replace(config, batch_size=1)
    shards = videos_of(lengths)
    plan = training_plan(shards, config)
    return [plan_clip(draw, shards.videos, config, donors=range(len(shards.videos)))
            for step in range(DRAWS) for draw in plan.batch(step)]


def input_of(name: str) -> InputConfig:
    return find_recipe(name).stage_one.input


@pytest.mark.parametrize(("name", "offsets"), [
    ("youtube_vis_2019_tube_link_r50", range(5)), ("youtube_vis_2021_tube_link_r50_near_online", range(5)),
    ("youtube_vis_2022_tube_link_swin_l_near_online", range(6)), ("ovis_tube_link_r50", range(4)),
    ("ovis_tube_link_swin_l_near_online", range(4)), ("vipseg_tube_link_r50", range(4)),
    ("kitti_step_tube_link_r50", range(4)), ("vspw_tube_link_r50", (0, 2, 4, 6)),
    ("vspw_tube_link_swin_l", range(0, 12, 2)), ("vspw_2_frames_tube_link_swin_l", range(2)),
    ("vipseg_vss_tube_link_swin_l", range(2))])
def test_tube_link_draws_every_window_equally_often_and_frames_at_the_official_distances(name, offsets):
    """Officially, the data set is a list of all frames that have the frames at `offsets` after them."""
    windows = [(video, start) for video, length in enumerate(LENGTHS) for start in range(length - max(offsets))]
    clips = [plan.clip for plan in drawn(input_of(name))]
    for clip in clips:
        assert clip.frames == tuple(clip.frames[0] + offset for offset in offsets)
    shares = Counter(clip.video.index for clip in clips)
    for video in range(len(LENGTHS)):
        assert near(shares[video] / DRAWS, sum(index == video for index, _ in windows) / len(windows))
    early = [(video, start) for video, start in windows if start < 10]
    assert near(sum(clip.frames[0] < 10 for clip in clips) / DRAWS, len(early) / len(windows))


@pytest.mark.parametrize("name", ["vipseg_video_kmax_r50", "vipseg_video_kmax_convnext_l_near_online"])
def test_maxtron_draws_every_video_equally_often_and_officially_never_its_last_window(name):
    """Officially, `random.randrange(video_length - clip_length)` is the first of two neighbouring frames."""
    for official_compat in (False, True):
        clips = [plan.clip for plan in drawn(replace(input_of(name), official_compat=official_compat))]
        shares = Counter(clip.video.index for clip in clips)
        assert all(near(shares[video] / DRAWS, 1 / len(LENGTHS)) for video in range(len(LENGTHS)))
        starts = Counter(clip.frames[0] for clip in clips if clip.video.index == 3)         # of 8 frames
        assert starts.keys() == set(range(6 if official_compat else 7))
        assert all(near(times / DRAWS, 1 / len(LENGTHS) / len(starts)) for times in starts.values())
        assert all(clip.frames[1] == clip.frames[0] + 1 for clip in clips)


@pytest.mark.parametrize("name", [
    "coco_kmax_r50", "coco_mask2former_instance_r50", "vipseg_video_kmax_r50_near_online",
    "youtube_vis_2019_tube_link_r50", "ovis_tube_link_r50", "vipseg_tube_link_r50", "vspw_tube_link_r50",
    "youtube_vis_2019_vita_r50"])
def test_half_of_the_clips_are_flipped_whole_and_time_never_runs_backwards(name):
    lengths = (1,) * 8 if name.startswith("coco") else LENGTHS
    clips = [plan.clip for plan in drawn(input_of(name), lengths)]
    flips = [{transform.flip for transform in clip.transforms} for clip in clips]
    assert all(len(flip) == 1 for flip in flips)
    assert near(flips.count({True}) / DRAWS, 0.5)
    assert all(list(clip.frames) == sorted(clip.frames) for clip in clips)


def official_colors(rng: np.random.Generator) -> ColorJitter:
    """`ColorAugSSDTransform` draws each change inside `apply_image`, so for each frame."""
    return ColorJitter(brightness=rng.uniform(-32, 32) if rng.integers(2) else 0.0,
                       contrast=rng.uniform(0.5, 1.5) if rng.integers(2) else 1.0,
                       saturation=rng.uniform(0.5, 1.5) if rng.integers(2) else 1.0,
                       hue=2 * rng.integers(-18, 19) if rng.integers(2) else 0.0)


AT_REST = {"brightness": (0.0, 32.0), "contrast": (1.0, 0.5), "saturation": (1.0, 0.5), "hue": (0.0, 36.0)}


@pytest.mark.parametrize(("name", "lengths"), [
    ("vipseg_video_kmax_r50", LENGTHS), ("vipseg_video_kmax_convnextv2_l_near_online", LENGTHS),
    ("coco_kmax_msda_r50", (1,) * 8)])
def test_colours_are_drawn_for_each_frame_of_clip_and_donor_with_the_official_ranges(name, lengths):
    plans = drawn(input_of(name), lengths)
    rng = np.random.default_rng(2)
    official = [official_colors(rng) for _ in range(DRAWS)]
    for part in (lambda plan: plan.clip, lambda plan: plan.donor):
        frames = [[transform.color or ColorJitter() for transform in part(plan).transforms] for plan in plans]
        for change, (rest, reach) in AT_REST.items():
            values = [[getattr(color, change) for color in clip] for clip in frames]
            for position in range(len(frames[0])):
                own = [clip[position] for clip in values]
                assert near(sum(value != rest for value in own) / DRAWS, 0.5)
                assert all(abs(value - rest) <= reach for value in own)
                assert mean_near([abs(value - rest) / reach for value in own],
                                 [abs(getattr(color, change) - rest) / reach for color in official])
            if len(frames[0]) == 2:         # the second frame does not follow the first
                both = sum(first != rest and second != rest for first, second in values)
                assert near(both / DRAWS, 0.25)


@pytest.mark.parametrize("name", [name for name in RECIPES if "tube_link" in name or "_vita_" in name
                                  or name.startswith("coco_mask2former")])
def test_families_of_mask2former_leave_the_colours(name):
    if find_recipe(name).world is None:
        assert not input_of(name).augment.color


def test_donors_are_other_videos_equally_often_and_paste_all_things_and_a_random_part_of_the_rest():
    """Officially, the list of segments is shuffled, the first `randint(0, n)` are kept, and all things.

    The donor may officially be the video itself, as often as any other.
    """
    plans = drawn(input_of("vipseg_video_kmax_r50"))
    assert all(plan.donor.video != plan.clip.video for plan in plans)
    donors = Counter(plan.donor.video.index for plan in plans)
    assert all(near(donors[video] / DRAWS, 1 / len(LENGTHS)) for video in range(len(LENGTHS)))
    segments = [Segment(id=id, class_index=int(id > 5)) for id in range(1, 9)]          # five of stuff, three things
    ids = np.arange(9, dtype=np.uint8).repeat(4)[None].repeat(4, axis=0)
    rng = np.random.default_rng(3)
    ours = [choose_segments([ids], segments, CLASSES, rng) for _ in range(DRAWS)]
    official = []
    for _ in range(DRAWS):
        order = rng.permutation(8)
        kept = order[:rng.integers(9)]
        official.append(sum(position < 5 for position in kept))
    assert all(sum(segment.class_index for segment in chosen) == 3 for chosen in ours)
    counts = Counter(len(chosen) - 3 for chosen in ours)
    for stuff in range(6):
        assert near(counts[stuff] / DRAWS, official.count(stuff) / DRAWS, drawn_too=True)


def test_images_of_coco_without_an_object_are_never_drawn_for_instances_but_for_panoptic_pre_training():
    for name, kept in (("coco_mask2former_instance_r50", 6), ("coco_mask2former_panoptic_r50", 8),
                       ("coco_kmax_r50", 8)):
        shards = videos_of((1,) * 8)
        shards.videos = HeldVideos(replace(video, segments=()) if video.index < 2 else video for video in shards.videos)
        plan = training_plan(shards, replace(input_of(name), batch_size=1))
        shares = Counter(draw.video for step in range(DRAWS) for draw in plan.batch(step))
        assert len(shares) == kept
        assert all(near(times / DRAWS, 1 / kept) for times in shares.values())


def test_vita_draws_frames_around_one_and_stills_in_the_official_share():
    """Officially, a frame of a video is drawn, and others with replacement from `reach` frames on either side."""
    for name in ("youtube_vis_2019_vita_r50", "ovis_vita_r50"):
        recipe = find_recipe(name)
        config = replace(recipe.stage_one.input, batch_size=1)
        videos = videos_of(LENGTHS)
        stills = videos_of((1,) * 50, STILL)
        plan = training_plan(videos, config, stills=Stills(stills, recipe.stage_one.stills.share))
        everything = (*videos.videos, *stills.videos)
        clips = [plan_clip(draw, everything, config, donors=range(0)).clip for step in range(DRAWS)
                 for draw in plan.batch(step)]
        share = {"youtube_vis_2019_vita_r50": 1 / 1.75, "ovis_vita_r50": 1 / 1.25}[name]
        assert near(sum(len(clip.video.frames) == 1 for clip in clips) / DRAWS, share)
        rng = np.random.default_rng(5)
        spans = [(clip.frames[-1] - clip.frames[0]) / 59 for clip in clips if len(clip.video.frames) == 60]
        official = []
        for _ in range(DRAWS):
            middle = rng.integers(60)
            near_by = [frame for frame in range(max(0, middle - config.reach), min(60, middle + config.reach + 1))
                       if frame != middle]
            frames = [middle, *rng.choice(near_by, config.clip_frames - 1)]
            official.append((max(frames) - min(frames)) / 59)
        assert abs(np.mean(spans) - np.mean(official)) < 5 * np.std(official) * (1 / len(spans) + 1 / DRAWS) ** 0.5


def official_window(rng: np.random.Generator, source: tuple[int, int], frames: int) -> dict[str, float] | None:
    """`RandomApplyClip` of `ResizeShortestEdgeClip` and `RandomCropClip`; None: the whole picture."""
    if rng.random() >= 0.5:
        return None
    scale = min(rng.choice([400, 500, 600]) / min(source), 1333 / max(source))
    height, width = (int(side * scale + 0.5) for side in source)
    kept = [rng.integers(min(side, 384), min(side, 600) + 1) for side in (height, width)]
    top, left = (rng.integers(side - own + 1) for side, own in zip((height, width), kept))
    bottom, right = rng.integers(top, height - kept[0] + 1), rng.integers(left, width - kept[1] + 1)
    share = np.sort(rng.random(frames))
    tops = np.round(top * share + bottom * (1 - share))
    lefts = np.round(left * share + right * (1 - share))
    if rng.random() < 0.5:
        tops, lefts = tops[::-1], lefts[::-1]
    return {"height": kept[0] / height, "width": kept[1] / width, "top": tops[0] / height, "left": lefts[-1] / width,
            "down": abs(tops[-1] - tops[0]) / height, "across": abs(lefts[-1] - lefts[0]) / width,
            "forwards": float(lefts[-1] > lefts[0])}


@pytest.mark.parametrize("name", ["youtube_vis_2019_vita_r50", "ovis_vita_swin_l"])
@pytest.mark.parametrize(("source", "still"), [(STILL, True), ((1280, 720), False), (SIZE, False)])
def test_vita_shows_moving_windows_of_half_the_clips_and_turns_stills(name, source, still):
    config = replace(input_of(name), batch_size=1)
    shards = videos_of((1,) * 8 if still else (30,) * 8, source)
    plan = training_plan(shards, config)
    clips = [plan_clip(draw, shards.videos, config, donors=range(0)).clip for step in range(DRAWS)
             for draw in plan.batch(step)]
    whole = [clip for clip in clips if {transform.box for transform in clip.transforms} == {(0, 0, *source)}]
    assert near(len(whole) / DRAWS, 0.5)
    rng = np.random.default_rng(7)
    official = [window for _ in range(DRAWS) if (window := official_window(rng, source, config.clip_frames))]
    seen: list[dict[str, float]] = []
    for clip in clips:
        boxes = np.array([transform.box for transform in clip.transforms]) / (*source, *source)
        top, left, bottom, right = boxes.T
        if clip not in whole:
            seen.append({"height": bottom[0] - top[0], "width": right[0] - left[0], "top": top[0], "left": left[-1],
                         "down": abs(top[-1] - top[0]), "across": abs(left[-1] - left[0]),
                         "forwards": float(left[-1] > left[0])})
    for measure in official[0]:
        ours, theirs = ([window[measure] for window in windows] for windows in (seen, official))
        spread = (np.var(ours) / len(ours) + np.var(theirs) / len(theirs)) ** 0.5
        assert abs(np.mean(ours) - np.mean(theirs)) <= 5 * spread + 0.002, measure      # whole pixels of another scale
    angles = [[transform.angle for transform in clip.transforms] for clip in clips]
    if not still:
        assert not np.any(angles)
        return
    assert near(sum(turn[0] < turn[-1] for turn in angles) / DRAWS, 0.5)
    assert all(turn in (sorted(turn), sorted(turn, reverse=True)) for turn in angles)
    assert mean_near([abs(turn[0]) / 15 for turn in angles],
                     [abs(np.sort(rng.uniform(-15, 15, config.clip_frames))[0]) / 15 for _ in range(DRAWS)])
    for axis in (0, 1):
        assert mean_near([(clip.transforms[0].pivot[axis] - 0.4) / 0.2 for clip in clips], rng.random(DRAWS))
