"""Checkpoints of a process by itself: the newest counts, old ones go, and what was cut off is not one."""

from __future__ import annotations

import pytest
import torch

from jobs.training.process import Alone


@pytest.fixture
def process(tmp_path):
    return Alone(tmp_path / "ray_train", 2, torch.device("cpu"))


def writer(text: str):
    return lambda folder: (folder / "state.json").write_text(text)


def read(folder) -> str:
    return (folder / "state.json").read_text()


def test_the_newest_checkpoint_counts_and_only_so_many_are_kept(process):
    assert process.newest(read) is None
    for step in (5, 95, 1_000):
        process.keep(step, writer(f"at {step}"))
        assert process.newest(read) == f"at {step}"
    assert sorted(path.name for path in process.folder.iterdir()) == ["step-0000095", "step-0001000"]


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
    assert sorted(path.name for path in process.folder.iterdir()) == ["step-0000002", "step-0000004"]
