"""Checkpoints of a single process: the newest counts, old ones are removed, unfinished ones are ignored."""

from __future__ import annotations

import pytest
import torch
from ray.train import Checkpoint

from jobs.training.process import OWN_CHECKPOINTS, RAY_CHECKPOINTS, SingleProcess, checkpoint_name, newest_of_both


@pytest.fixture
def process(tmp_path):
    return SingleProcess(tmp_path, 2, torch.device("cpu"))


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def writer(text: str):
    return lambda folder: (folder / "state.json").write_text(text)


def read(folder) -> str:
    return (folder / "state.json").read_text()


def test_the_newest_checkpoint_counts_and_only_the_given_number_is_kept(process):
    assert process.newest(read) is None
    for step in (5, 95, 1_000):
        process.keep(step, writer(f"at {step}"))
        assert process.newest(read) == f"at {step}"
    assert names_in(process.folder / OWN_CHECKPOINTS) == ["step-0000095", "step-0001000"]


def test_an_unfinished_checkpoint_does_not_count_and_can_be_written_again(process):
    process.keep(2, writer("whole"))

    def full_disk(folder):
        writer("half")(folder)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        process.keep(4, full_disk)
    assert process.newest(read) == "whole"
    process.keep(4, writer("whole again"))
    assert process.newest(read) == "whole again"
    assert names_in(process.folder / OWN_CHECKPOINTS) == ["step-0000002", "step-0000004"]


def ray_checkpoint(process: SingleProcess, step: int) -> Checkpoint:
    folder = process.folder / RAY_CHECKPOINTS / checkpoint_name(step)
    folder.mkdir(parents=True)
    writer(f"Ray at {step}")(folder)
    return Checkpoint.from_directory(folder)


def test_training_resumes_from_the_checkpoint_with_the_most_steps(process):
    assert newest_of_both(process.folder, None, read) is None
    process.keep(40, writer("alone at 40"))
    assert newest_of_both(process.folder, None, read) == "alone at 40"
    for step, expected in ((20, "alone at 40"), (60, "Ray at 60")):
        checkpoint = ray_checkpoint(process, step)
        assert newest_of_both(process.folder, checkpoint, read) == process.newest(read) == expected


def test_a_cluster_does_not_resume_from_a_checkpoint_that_ray_does_not_list(process):
    ray_checkpoint(process, 60)
    assert newest_of_both(process.folder, None, read) is None
