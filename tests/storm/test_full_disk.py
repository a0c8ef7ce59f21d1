"""Every writer and every verb on a full disk: the file is named with a cure, and the same command goes on later."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from jobs import make_shards, train_stage_one
from jobs.training.checkpoint import save_checkpoint
from jobs.training.checkpoint_folders import add_checkpoint, newest_whole
from jobs.training.loop import StepReport
from jobs.training.optimizer import OptimizerConfig, build_optimizer
from jobs.training.progress import Progress
from jobs.training.tracking import TrackingConfig
from jobs.training.uploads import Uploads
from jobs.verb import guarded
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.spool import TensorSpool
from pipeline.visualise.video_writer import VideoWriter
from tests.runs import here
from tests.storm.small_disk import disk_of, make_room, small_file_system
from tests.storm.small_run import ORDER, VERBS, of_verb, small_recipe
from tests.untrained_run import write_video

FULL = 20_000       # bytes that fit into a file


def names_file(error: OSError, path: Path) -> bool:
    """Whether the error of a file that grew too large, or of a disk that is full, names the file and the cure."""
    cure = "Raise the limit (ulimit -f unlimited)" if error.errno == errno.EFBIG else "Make room"
    return str(error).endswith(f": '{path}'") and cure in "".join(error.__notes__)


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def write_noise(path: Path) -> None:
    rng = np.random.default_rng(0)
    with VideoWriter(path, fps=5) as video:
        for _ in range(100):
            video.write(rng.integers(0, 255, (96, 128, 3), np.uint8))


def test_a_video(tmp_path):
    with disk_of(FULL), pytest.raises(OSError, match="large") as raised:
        write_noise(tmp_path / "a.mp4")
    assert names_file(raised.value, tmp_path / "a.mp4")
    assert files_in(tmp_path) == []
    write_noise(tmp_path / "a.mp4")
    assert files_in(tmp_path) == ["a.mp4"]


def test_what_is_kept_of_a_long_video(tmp_path):
    with disk_of(FULL), pytest.raises(OSError, match="large") as raised:
        TensorSpool(tmp_path).append((torch.zeros(50_000), 1))
    assert names_file(raised.value, tmp_path)
    assert "200,000 bytes" in raised.value.__notes__[0]


def test_a_synthetic_world(tmp_path):
    config = SyntheticConfig(videos_train=1, videos_val=1, frames=2, height=48, width=64)
    with disk_of(200), pytest.raises(OSError, match="large") as raised:
        write_world(tmp_path / "world", config)
    assert names_file(raised.value, tmp_path / "world")
    assert files_in(tmp_path) == []
    write_world(tmp_path / "world", config)


def test_a_checkpoint(tmp_path):
    model = nn.Linear(100, 100)
    optimizer = build_optimizer(model, OptimizerConfig())
    write = partial(save_checkpoint, model=model, optimizer=optimizer, state={"step": 2})
    with disk_of(FULL), pytest.raises(OSError, match=r"model\.safetensors") as raised:
        add_checkpoint(tmp_path, "checkpoints", 2, write, keeps=2, uploads=Uploads())
    assert "ulimit -f unlimited" in raised.value.__notes__[0]
    assert files_in(tmp_path) == []
    add_checkpoint(tmp_path, "checkpoints", 2, write, keeps=2, uploads=Uploads())
    assert newest_whole(tmp_path, first_step=2) is not None


def test_a_line_of_progress_is_whole_or_not_there(tmp_path, capsys):
    progress = Progress(tmp_path / "progress.jsonl", 4, 1)
    report = StepReport(1, {"loss": 1.0}, 0.1, 0.1, 0.1, 0.1)
    progress(report)
    size = progress.path.stat().st_size
    with disk_of(size + 20), pytest.raises(OSError, match=r"progress\.jsonl"):
        progress(report)
    assert progress.path.stat().st_size == size
    progress(report)
    assert [json.loads(line)["step"] for line in progress.path.read_text().splitlines()] == [1, 1]


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A folder on a small disk of its own; what is beside it has room, such as the tracker."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        with small_file_system(folder, FULL):
            yield folder
    except subprocess.CalledProcessError:
        pytest.skip("this user may not mount a file system")


@pytest.mark.long
def test_every_verb_names_the_file_and_goes_on_when_there_is_room(tmp_path, disk, capsys):
    recipe = replace(small_recipe(disk), tracking=TrackingConfig(uri=f"sqlite:///{tmp_path / 'tracking.db'}"))
    write_video(tmp_path / "videos" / "a.mp4", 12)
    for verb in ORDER:
        make_room(disk, shutil.disk_usage(disk).used + FULL)
        capsys.readouterr()
        code = guarded(VERBS[verb], lambda verb=verb: of_verb(recipe, verb, videos=tmp_path / "videos"))
        said = capsys.readouterr().err
        assert (verb, code) == (verb, 1), said
        error, cure = said[said.index("error: "):].splitlines()[:2]
        assert "No space left on device" in error
        assert str(disk) in error
        assert re.search(r"bytes are free|Free are", cure)
        make_room(disk, 2**30)
        assert guarded(VERBS[verb], lambda verb=verb: of_verb(recipe, verb, videos=tmp_path / "videos")) == 0


@pytest.mark.ray
def test_a_worker_of_ray_on_a_full_disk_ends_the_verb_once_and_training_goes_on_later(tmp_path, disk, cluster, capsys):
    recipe = replace(small_recipe(disk), tracking=TrackingConfig(uri=f"sqlite:///{tmp_path / 'tracking.db'}"))
    recipe = replace(recipe, cluster=replace(recipe.cluster, in_process=False, workers=1))
    make_room(disk, 2**30)
    make_shards.main(here(recipe))
    make_room(disk, shutil.disk_usage(disk).used + 500_000)
    assert guarded(train_stage_one.main, lambda: recipe) == 1
    said = capsys.readouterr().err
    assert "error: [Errno 28] No space left on device: " in said
    assert str(disk / "stage_one" / "ray_train") in said
    assert "bytes are free" in said
    assert "run the same command again" in said
    make_room(disk, 2**30)
    assert guarded(train_stage_one.main, lambda: recipe) == 0
