"""The Ray Data chains do what the plain loop does, and survive the loss of a worker."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ray.exceptions import RayActorError

from pipeline.errors import BadInput
from pipeline.files import sha256_of
from pipeline.shards import ShardConfig, make_shards
from pipeline.shards.plan import plan_shards
from pipeline.streams import actor_stream, shard_stream
from tests.pipeline.shards.toy_videos import ToyVideos, toy_videos

pytestmark = pytest.mark.ray

CONFIG = ShardConfig(clip_frames=4, min_shards=3)


class DiesOnce(ToyVideos):
    """Kills the first process that reads the labels of video "c" in the middle of its shard."""

    def frame_ids(self, video, frame):
        killed = self.root / "killed"
        if video.video_id == "c" and not killed.exists():
            killed.touch()
            os._exit(9)
        return super().frame_ids(video, frame)


class Unready:
    """An argument that three processes cannot read, as on a machine that is not ready."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __setstate__(self, state: dict) -> None:
        self.__dict__ = state
        (self.folder / str(os.getpid())).touch()
        if len(list(self.folder.iterdir())) <= 3:
            raise OSError("this machine is not ready")


class Counter:
    """An actor that needs such an argument."""

    def __init__(self, machine: Unready) -> None:
        self.machine = machine

    def __call__(self, number: int) -> dict:
        return {"number": number}


class Meeting:
    """An actor that is done once another one has begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *, number: int) -> dict:
        (self.folder / str(os.getpid())).touch()
        ends = time.monotonic() + 60
        while len(list(self.folder.iterdir())) < 2 and time.monotonic() < ends:
            time.sleep(0.1)
        return {"number": number, "others": len(list(self.folder.iterdir())) - 1}


class Unbuildable:
    """An actor that the user's data cannot build. It notes each attempt."""

    def __init__(self, folder: Path) -> None:
        (folder / str(os.getpid())).touch()
        raise BadInput("missing-model", "there is none", video="v")


def contents(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


def test_ray_gives_the_bytes_of_the_plain_loop_though_a_worker_dies(cluster, tmp_path):
    lengths = {"a": 6, "b": 3, "c": 5, "d": 2, "e": 9}
    toy_videos(tmp_path / "toy", lengths)
    make_shards(DiesOnce(tmp_path / "toy", lengths), tmp_path / "ray", CONFIG, split="train", workers=2)
    assert (tmp_path / "toy" / "killed").exists()
    for partial in (tmp_path / "ray").glob("*.partial"):    # the dead worker's; the next run sweeps them
        partial.unlink()
    make_shards(ToyVideos(tmp_path / "toy", lengths), tmp_path / "plain", CONFIG, split="train")
    assert contents(tmp_path / "ray") == contents(tmp_path / "plain")


def test_the_error_of_a_strict_run_comes_back_as_itself(cluster, tmp_path):
    data = toy_videos(tmp_path / "toy", {"a": 2, "b": 2})
    data.label("b", 1).unlink()
    with pytest.raises(BadInput) as caught:
        make_shards(data, tmp_path / "out", CONFIG, split="train", workers=2, strict=True)
    assert (caught.value.video, caught.value.reason) == ("b", "missing-label")


def test_one_shard_is_one_task(cluster, tmp_path):
    data = toy_videos(tmp_path / "toy", dict.fromkeys("abcd", 1))
    plan = plan_shards(data, ShardConfig(min_shards=4), split="train")
    (tmp_path / "out").mkdir()
    facts = list(shard_stream(data, tmp_path / "out", plan, workers=2))
    assert sorted(fact["name"] for fact in facts) == [plan.name(shard) for shard in range(4)]


@pytest.mark.long
def test_an_actor_that_cannot_be_started_is_replaced_a_few_times(cluster, tmp_path):
    rows = [{"number": number} for number in range(3)]
    pool = {"arguments": {"machine": Unready(tmp_path)}, "actors": 1}
    with pytest.raises(RayActorError, match="this machine is not ready"):
        list(actor_stream(rows, Counter, **pool))
    assert sorted(result["number"] for result in actor_stream(rows, Counter, failed_starts=2, **pool)) == [0, 1, 2]


def test_two_rows_are_worked_on_at_the_same_time(cluster, tmp_path):
    rows = [{"number": number} for number in range(2)]
    met = list(actor_stream(rows, Meeting, arguments={"folder": tmp_path}, actors=2))
    assert sorted(result["number"] for result in met) == [0, 1]
    assert all(result["others"] == 1 for result in met)


def test_an_actor_that_cannot_be_built_says_why_and_is_not_replaced(cluster, tmp_path):
    with pytest.raises(BadInput, match="there is none"):
        list(actor_stream([{"number": 1}], Unbuildable, arguments={"folder": tmp_path}, actors=1, failed_starts=4))
    assert len(list(tmp_path.iterdir())) == 1
