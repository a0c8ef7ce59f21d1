"""Every verb can be submitted as a job, whose log holds the lines of the verb and Ray's three about its connection."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import pytest

from tests.cluster.hosts import ROOT
from tests.cluster.small_runs import TOY, settings
from tests.job_logs import foreign_lines, summaries

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow]


def flags_of_verbs(run: Path) -> dict[str, tuple[str, ...]]:
    """The flags of every verb in the folder of a run, in an order in which each verb finds what it needs.

    The weights of the networks have official names, which `convert_checkpoint` asks for.
    """
    own = ("--recipe", "tiny", *settings(f"folder={run}", "stage_one.segmenter.backbone.name=test_convnext",
                                         "stage_two.head.start=official"))
    given = (*own, *settings(f"predict.input={run}/world/images/val_00000", "world.videos_train=4",
                             "world.videos_val=1", "stage_one.fit.steps=1", "stage_two.fit.steps=1",
                             "cluster.workers=1", "cluster.actors=1"))
    like_all = ("check_dataset", "demo", "make_shards", "verify_shards", "train_stage_one", "cache_queries",
                "inspect_cache", "verify_cache", "train_stage_two", "evaluate", "predict", "export_tracks", "report",
                "draw_switches", "draw_queries", "demo_picture", "promote", "hand_over", "sync_tracking")
    return {
        **dict.fromkeys(like_all, given),
        "draw_attention": (*given, "--point", "20,20"),
        "sweep": (*given, "--over", "stage_two.head.layers=1"),
        "estimate": own,
        "profile": (*own, "--repeats", "0"),
        "longest_video": ("--recipe", "tiny_vita", *settings(f"folder={run}"), "--gigabytes", "0.6", "--size", "64",
                          "64"),
        "convert_checkpoint": (*own, "--source", str(run), "--output", f"{run}/official.pth", "--back"),
        "reproduce": ("--table", "video_kmax.2", "--seeds", "1", "--folder", f"{run}/tables", *TOY,
                      *settings("cluster.actors=1")),
    }


def test_each_prints_only_its_own_lines_and_three_of_ray(hosts):
    """A job has two verbs, since its client is given some minutes."""
    verbs = flags_of_verbs(hosts.base / "verbs" / "run")
    assert verbs.keys() == {path.stem for path in (ROOT / "jobs").glob("*.py") if "__main__" in path.read_text()}
    commands = [shlex.join(("python", "-m", f"jobs.{verb}", *flags)) for verb, flags in verbs.items()]
    ended = []
    for first in range(0, len(commands), 2):
        began = time.monotonic()
        log = hosts.submit("sh", "-ec", "\n".join(commands[first:first + 2]))
        print(f"{time.monotonic() - began:.0f} s: {', '.join(list(verbs)[first:first + 2])}")
        assert "ended with 0" in log, log
        assert foreign_lines(log) == []
        ended += summaries(log)
    assert ended == [f"jobs.{verb}" for verb in verbs]
