"""A checkpoint is uploaded to a store while training goes on, and the next save tells what went wrong."""

from __future__ import annotations

import shutil
import tempfile
import threading
from functools import partial
from pathlib import Path

import pytest
from torch import nn

from benchmarks.object_store import BUCKET, farther_away
from jobs.training.checkpoint import save_checkpoint
from jobs.training.checkpoint_folders import OWN_CHECKPOINTS, add_checkpoint, checkpoint_name, newest_whole
from jobs.training.optimizer import OptimizerConfig, build_optimizer
from jobs.training.uploads import Uploads
from pipeline import store
from tests.object_store import store_for_tests


def write(folder: Path, *, step: int) -> None:
    model = nn.Linear(2, 1)
    save_checkpoint(folder, model=model, optimizer=build_optimizer(model, OptimizerConfig()), state={"step": step})


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """The folder of a stage in a store that answers after half a second."""
    with store_for_tests(tmp_path / "server") as environment, farther_away(environment["AWS_ENDPOINT_URL"], 0.5) as far:
        monkeypatch.setenv("AWS_ENDPOINT_URL", far)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        yield store.working_path(f"s3://{BUCKET}/stage")


@pytest.mark.long
def test_a_checkpoint_has_its_name_once_it_is_uploaded_and_training_need_not_wait(stage):
    uploads = Uploads()
    for step in (1, 2, 3):
        add_checkpoint(stage, OWN_CHECKPOINTS, step, partial(write, step=step), keeps=2, uploads=uploads)
        assert not (stage / OWN_CHECKPOINTS / checkpoint_name(step)).exists()
    uploads.wait()
    shutil.rmtree(stage)            # the store alone has them now
    assert newest_whole(stage, first_step=1) == stage / OWN_CHECKPOINTS / checkpoint_name(3)
    assert sorted(path.name for path in (stage / OWN_CHECKPOINTS).iterdir()) == [checkpoint_name(2), checkpoint_name(3)]


def test_work_is_done_in_order_and_an_error_is_raised_once_before_the_next():
    uploads = Uploads()
    done = []
    may_end = threading.Event()
    uploads.begin(lambda: done.append(may_end.wait(30)))
    assert not done
    may_end.set()
    uploads.begin(lambda: done.append(Path("/nowhere").read_text()))
    with pytest.raises(FileNotFoundError):
        uploads.begin(lambda: done.append(3))
    uploads.begin(lambda: done.append(4))
    uploads.wait()
    assert done == [True, 4]
