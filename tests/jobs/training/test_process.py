"""Checkpoints of a process by itself: the newest counts, old ones go, and what was cut off is not one."""

from __future__ import annotations

import pytest
import torch
from ray.train import Checkpoint

from jobs.training.process import OF_ALONE, OF_RAY, Alone, checkpoint_name, newest_of_both


@pytest.fixture
def process(tmp_path):
    return Alone(tmp_path, 2, torch.device("cpu"))


def writer(text: str):
    return lambda folder: (folder / "state.json").write_text(text)


def read(folder) -> str:
    return (folder / "state.json").read_text()


def test_the_newest_checkpoint_counts_and_only_so_many_are_kept(process):
    assert process.newest(read) is None
    for step in (5, 95, 1_000):
        process.keep(step, writer(f"at {step}"))
        assert process.newest(read) == f"at {step}"
    assert sorted(path.name for path in (process.folder / OF_ALONE).iterdir()) == ["step-0000095", "step-0001000"]


def test_a_checkpoint_that_could_not_be_finished_does_not_count_and_may_be_written_again(process):
    process.keep(2, writer("whole"))

    def full_disk(folder):
        writer("half")(folder)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        process.keep(4, full_disk)
    assert process.newest(read) == "whole"
    process.keep(4, writer("whole again"))
    assert process.newest(read) == "whole again"
    assert sorted(path.name for path in (process.folder / OF_ALONE).iterdir()) == ["step-0000002", "step-0000004"]


def of_ray(process: Alone, step: int) -> Checkpoint:
    folder = process.folder / OF_RAY / checkpoint_name(step)
    folder.mkdir(parents=True)
    writer(f"Ray at {step}")(folder)
    return Checkpoint.from_directory(folder)


def test_whoever_goes_on_takes_the_checkpoint_with_the_most_steps(process):
    assert newest_of_both(process.folder, None, read) is None
    process.keep(40, writer("alone at 40"))
    assert newest_of_both(process.folder, None, read) == "alone at 40"
    for step, expected in ((20, "alone at 40"), (60, "Ray at 60")):
        checkpoint = of_ray(process, step)
        assert newest_of_both(process.folder, checkpoint, read) == process.newest(read) == expected


def test_what_ray_does_not_count_is_not_gone_on_from_on_a_cluster(process):
    of_ray(process, 60)
    assert newest_of_both(process.folder, None, read) is None
