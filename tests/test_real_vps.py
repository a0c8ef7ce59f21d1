"""Every verb on real annotated frames: void, names that are not contiguous, three sizes; no frame is lost."""

from __future__ import annotations

from dataclasses import replace

import av
import pytest

from jobs import cache_queries, evaluate, make_shards, train_stage_one, train_stage_two
from jobs.recipes.schema import Recipe
from pipeline.clips import AugmentConfig
from pipeline.datasets import DatasetConfig
from pipeline.predictions import read_predictions
from pipeline.query_cache import QueryCache
from pipeline.shards import ShardSet
from tests.runs import scored, tiny_run

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

CLASSES = 124
SIZE = (97, 161)
FRAMES = {"train": {"camvid_0016E5": 34, "table_walk_a": 43}, "val": {"12_1mWNahzcsAc": 4}}


def real_run(folder, data) -> Recipe:
    """`tiny` on VIPSeg's 124 classes, two steps per stage; two workers see one video each."""
    recipe = tiny_run(folder, world=None, dataset=DatasetConfig(name="vipseg", root=str(data / "real_vps")))
    one = recipe.stage_one
    two = recipe.stage_two
    short = {"steps": 2, "log_every": 1, "checkpoint_every": 2}
    return replace(
        recipe, shards=replace(recipe.shards, clip_frames=8),
        stage_one=replace(one, segmenter=replace(one.segmenter, num_classes=CLASSES), fit=replace(one.fit, **short),
                          input=replace(one.input, batch_size=2, augment=AugmentConfig(size=SIZE))),
        stage_two=replace(two, head=replace(two.head, num_classes=CLASSES), fit=replace(two.fit, **short),
                          input=replace(two.input, batch_size=2)))


def test_real_videos_go_down_every_verb(cluster, tmp_path, real_data):
    recipe = real_run(tmp_path / "run", real_data)
    made = make_shards.main(recipe)
    assert {split: (made[split]["frames"], made[split]["skipped"]) for split in FRAMES} == {
        split: (sum(videos.values()), {}) for split, videos in FRAMES.items()}
    for split, videos in FRAMES.items():
        shards = ShardSet(recipe.shards_of(split))
        assert {video.video_id: len(video.frames) for video in shards.videos} == videos
        for video in shards.videos:
            on_disk = sorted((real_data / "real_vps" / "imgs" / video.video_id).glob("*.jpg"))
            assert [frame.name for frame in video.frames] == [path.stem for path in on_disk]
            stored = shards.read(video, 0, len(video.frames))
            assert [jpeg for jpeg, _ in stored] == [path.read_bytes() for path in on_disk]      # untouched

    train_stage_one.main(recipe)
    cached = QueryCache(cache_queries.main(recipe)["cache"])
    assert {video: sum(clip.num_frames for clip in cached.read(group)) for video, (group,) in cached.videos.items()
            } == FRAMES["train"]
    train_stage_two.main(recipe)

    for mode in ("near_online", "offline"):
        said = evaluate.main(scored(recipe, mode=mode))
        assert (said["videos"], said["frames"], said["skipped"]) == (1, 4, [])
        assert all(0 <= said["vpq_by_window"][window] <= 100 for window in ("1", "2", "4"))
        assert said["vpq"] is None      # its mean needs a window of six frames, and this video has four
        (folder,) = (recipe.run_folder / "scores" / mode / "predictions").iterdir()
        (video,) = read_predictions(folder).values()
        assert {frame.shape for frame in video.frames} == {(720, 1280)}
        (overlay,) = said["overlays"]
        with av.open(overlay) as drawn:
            assert sum(1 for _ in drawn.decode(video=0)) == 4
