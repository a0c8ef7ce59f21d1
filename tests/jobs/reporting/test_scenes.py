"""A scene shows the matches and switches that the scores of its evaluation count, for panoptic videos and tracks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jobs import make_shards
from jobs.recipes import find_recipe
from jobs.reporting.evaluations import Evaluation, read_evaluations
from jobs.reporting.gallery import box_around, gallery
from jobs.reporting.scenes import open_scene, switching_videos
from jobs.reporting.timelines import timeline_picture
from jobs.verb import resolved
from model.contracts import Track, VideoResults
from pipeline.metrics.scorecard import Scorecard
from pipeline.predictions import PredictionWriter
from pipeline.shards import ShardSet
from tests.jobs.reporting.planted import exchanged, scored_with_faults
from tests.runs import here

SWITCH = 3          # the frame from which ids are exchanged


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return scored_with_faults(tmp_path_factory.mktemp("planted") / "run", lambda video: exchanged(video, frame=SWITCH))


def test_planted_switches_are_the_ones_that_are_drawn(run):
    shards = ShardSet(run.shards_of("val"))
    (evaluation,) = read_evaluations(run.scores_root)
    switched = 0
    for stored in shards.videos:
        scene = open_scene(evaluation, stored, shards, run)
        picture = timeline_picture(scene, shards.classes)
        assert picture.switches == picture.counted == len(scene.timeline.switches)
        things = [i for i, segment in scene.truth.segments.items() if segment.track][:2]
        if len(things) == 2:        # each of the two takes the id of the other at the first frame in which it is seen
            for switch in scene.timeline.switches:
                row = next(row for row in scene.timeline.rows if row.thing == switch.thing)
                assert switch.frame == next(frame for frame in range(SWITCH, 8) if row.seen[frame])
                assert {switch.before, switch.after} == set(things)
                switched += 1
        assert [strip.switches for strip in picture.strips].count(()) == len(picture.strips) - picture.switches
    assert switched == evaluation.summary["switches"] > 0


def test_the_gallery_has_a_pair_of_pictures_for_each_switch(run):
    shards = ShardSet(run.shards_of("val"))
    (evaluation,) = read_evaluations(run.scores_root)
    names = switching_videos([evaluation], 2)
    scenes = [open_scene(evaluation, video, shards, run) for video in shards.videos if video.video_id in names]
    pictures = gallery(scenes, shards)
    assert len(pictures) == sum(len(scene.timeline.switches) for scene in scenes) > 0
    for picture in pictures:
        assert picture.before != picture.after
        assert picture.before.startswith("data:image/webp;base64,")
        assert "outlined" in picture.before_words


def test_a_box_lies_in_the_frame_and_around_the_mask():
    mask = np.zeros((40, 60), bool)
    mask[30:38, 0:4] = True
    rows, columns = box_around([mask])
    assert mask[rows, columns].sum() == mask.sum()
    assert 0 <= rows.start < rows.stop <= 40
    assert columns.start == 0
    assert columns.stop <= 60


def test_switches_of_tracks_are_those_at_the_threshold_that_the_metric_chose(tmp_path):
    recipe = here(resolved(replace(find_recipe("tiny_vis"), folder=str(tmp_path / "run"), stage_two=None)))
    recipe = replace(recipe, world=replace(recipe.world, videos_train=2, videos_val=2, frames=8))
    make_shards.main(recipe)
    shards = ShardSet(recipe.shards_of(recipe.evaluation.split))
    writer = PredictionWriter(folder=tmp_path / "scores/near_online/predictions/x", classes=shards.classes, made_by={})
    videos = {}
    for stored in shards.videos:
        truth = VideoResults(tracks=shards.truth_tracks(stored))
        predicted = VideoResults(tracks=replace(truth.tracks, tracks=tuple(in_two(truth.tracks.tracks))))
        card = Scorecard(shards.classes, ("tracks",), windows=(1,))
        card.update(predicted, truth)
        videos[stored.video_id] = {"scores": card.to_json()}
        writer.write(predicted)
    evaluation = Evaluation(folder=tmp_path / "scores/near_online", summary={"predictions": "x"}, videos=videos)
    assert evaluation.track_threshold == 0.3        # the lowest without the tracks that cover nothing else
    total = 0
    for stored in shards.videos:
        scene = open_scene(evaluation, stored, shards, recipe)
        assert len(scene.timeline.switches) == scene.switches
        for switch in scene.timeline.switches:
            assert {switch.before, switch.after} <= scene.predicted.segments.keys()
            assert switch.thing in scene.truth.segments
        total += scene.switches
    assert total == Scorecard.sum_of(evaluation.cards.values()).scores()["track_identity"].switches > 0


def in_two(tracks):
    """Each track as two identities, of which the longer one has the lower score, and its first mask once more."""
    for track in tracks:
        frames = len(track.masks)
        part = frames // 4
        yield replace(track, score=0.9, masks=(*track.masks[:part], *[None] * (frames - part)))
        yield replace(track, score=0.55, masks=(*[None] * part, *track.masks[part:]))
        yield Track(class_index=track.class_index, score=0.2, masks=(track.masks[0], *[None] * (frames - 1)))
