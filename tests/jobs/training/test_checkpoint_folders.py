"""Checkpoint folders: the newest whole one counts, whoever wrote it; old ones are removed, damaged ones passed over."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from torch import nn

from jobs.training.checkpoint import Damaged, save_checkpoint
from jobs.training.checkpoint_folders import (
    OWN_CHECKPOINTS,
    RAY_CHECKPOINTS,
    add_checkpoint,
    checkpoint_name,
    newest_whole,
)
from jobs.training.optimizer import OptimizerConfig, build_optimizer
from jobs.training.uploads import Uploads
from pipeline.errors import Mismatch
from pipeline.foreign_files import own_json
from pipeline.processes import machine

FIRST = 2       # the step at which these trainings save first


def write(folder: Path, step: int) -> None:
    model = nn.Linear(2, 1)
    save_checkpoint(folder, model=model, optimizer=build_optimizer(model, OptimizerConfig()), state={"step": step})


def add(stage: Path, *steps: int, place: str = OWN_CHECKPOINTS, keeps: int = 20) -> None:
    for step in steps:
        add_checkpoint(stage, place, step, partial(write, step=step), keeps=keeps, uploads=Uploads())


def folder_of(stage: Path, step: int, place: str = OWN_CHECKPOINTS) -> Path:
    return stage / place / checkpoint_name(step)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-7])


def with_state(folder: Path, **changes: object) -> None:
    state = own_json(folder / "state.json", cure="")
    (folder / "state.json").write_text(json.dumps({**state, **changes}))


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGE: dict[str, Callable[[Path], None]] = {
    "only the state, as a copy that was killed leaves it": lambda folder: [
        (folder / name).unlink() for name in ("model.safetensors", "optimizer.pt")],
    "no state": lambda folder: (folder / "state.json").unlink(), "state cut": cut("state.json"),
    "state empty": lambda folder: (folder / "state.json").write_bytes(b""),
    "state of something else": lambda folder: (folder / "state.json").write_text('{"schema": 1, "kind": "head"}'),
    "state of another step": partial(with_state, step=3), "state without files": partial(with_state, files={}),
    "weights cut": cut("model.safetensors"), "weights changed": flip_a_bit, "optimizer cut": cut("optimizer.pt"),
    "no optimizer": lambda folder: (folder / "optimizer.pt").unlink(), "empty folder": empty}


def test_only_the_given_number_is_kept_and_names_need_no_padding(tmp_path):
    assert newest_whole(tmp_path, first_step=FIRST) is None
    for step in (5, 95, 1_000, 12_345_678):
        add(tmp_path, step, keeps=2)
        assert newest_whole(tmp_path, first_step=FIRST) == folder_of(tmp_path, step)
    assert names_in(tmp_path / OWN_CHECKPOINTS) == ["step-0001000", "step-12345678"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_others_and_nothing_of_its_own(tmp_path):
    add(tmp_path, 2, 4)
    before = (folder_of(tmp_path, 4) / "model.safetensors").read_bytes()

    def full_disk(folder: Path) -> None:
        (folder / "model.safetensors").write_text("half")
        raise OSError("no space left")

    for step in (4, 6):
        with pytest.raises(OSError, match="no space"):
            add_checkpoint(tmp_path, OWN_CHECKPOINTS, step, full_disk, keeps=2, uploads=Uploads())
    assert names_in(tmp_path / OWN_CHECKPOINTS) == ["step-0000002", "step-0000004"]
    assert (folder_of(tmp_path, 4) / "model.safetensors").read_bytes() == before


def test_what_a_killed_writer_left_is_removed(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / OWN_CHECKPOINTS / f"step-0000004.{machine()}-{ended.pid}-01234567.partial").mkdir(parents=True)
    assert newest_whole(tmp_path, first_step=FIRST) is None
    add(tmp_path, 6)
    assert names_in(tmp_path / OWN_CHECKPOINTS) == ["step-0000006"]


def test_the_checkpoint_with_the_most_steps_counts_and_the_oldest_go_whoever_wrote_them(tmp_path):
    add(tmp_path, 20, 40)
    add(tmp_path, 30, place=RAY_CHECKPOINTS)
    assert newest_whole(tmp_path, first_step=FIRST) == folder_of(tmp_path, 40)
    add(tmp_path, 60, place=RAY_CHECKPOINTS, keeps=2)
    assert newest_whole(tmp_path, first_step=FIRST) == folder_of(tmp_path, 60, RAY_CHECKPOINTS)
    assert names_in(tmp_path / OWN_CHECKPOINTS) == ["step-0000040"]
    assert names_in(tmp_path / RAY_CHECKPOINTS) == ["step-0000060"]


@pytest.mark.parametrize("place", [RAY_CHECKPOINTS, OWN_CHECKPOINTS])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_named_and_the_one_before_counts(tmp_path, capsys, damage, place):
    add(tmp_path, 2, place=OWN_CHECKPOINTS)
    add(tmp_path, 4, place=place)
    damage(folder_of(tmp_path, 4, place))
    assert newest_whole(tmp_path, first_step=FIRST) == folder_of(tmp_path, 2)
    said = capsys.readouterr().out
    assert said.startswith(f"passed over the checkpoint {folder_of(tmp_path, 4, place)}: ")
    assert said.count("\n") == 1


def test_the_newest_ten_may_be_damaged(tmp_path, capsys):
    add(tmp_path, *range(2, 24, 2))
    for step, damage in zip(range(22, 2, -2), DAMAGE.values()):
        damage(folder_of(tmp_path, step))
    assert newest_whole(tmp_path, first_step=FIRST) == folder_of(tmp_path, 2)
    assert capsys.readouterr().out.count("passed over") == 10


def test_a_damaged_first_checkpoint_costs_nothing_but_its_own_steps(tmp_path, capsys):
    add(tmp_path, FIRST)
    empty(folder_of(tmp_path, FIRST))
    assert newest_whole(tmp_path, first_step=FIRST) is None
    assert "passed over" in capsys.readouterr().out


def test_training_does_not_start_anew_where_later_checkpoints_are_all_damaged(tmp_path):
    add(tmp_path, 2, 4)
    for step in (2, 4):
        flip_a_bit(folder_of(tmp_path, step))
    with pytest.raises(Damaged, match=r"none of the 2 checkpoints in .*step-0000004.*remove these folders"):
        newest_whole(tmp_path, first_step=FIRST)
    assert names_in(tmp_path / OWN_CHECKPOINTS) == ["step-0000002", "step-0000004"]


def test_damaged_checkpoints_of_later_steps_do_not_push_out_whole_ones(tmp_path):
    add(tmp_path, 2, 4, 6, 8)
    for step in (6, 8):
        flip_a_bit(folder_of(tmp_path, step))
    add(tmp_path, 5, keeps=2)
    assert newest_whole(tmp_path, first_step=FIRST) == folder_of(tmp_path, 5)
    assert names_in(tmp_path / OWN_CHECKPOINTS) == [f"step-000000{step}" for step in (4, 5, 6, 8)]
    add(tmp_path, 6, 8, keeps=2)
    assert newest_whole(tmp_path, first_step=FIRST) == folder_of(tmp_path, 8)
    assert names_in(tmp_path / OWN_CHECKPOINTS) == ["step-0000006", "step-0000008"]


def test_a_whole_checkpoint_of_another_version_is_not_passed_over(tmp_path):
    add(tmp_path, 2, 4)
    with_state(folder_of(tmp_path, 4), schema=99)
    with pytest.raises(Mismatch, match=r"has schema 99, this version reads 1.*move the folder"):
        newest_whole(tmp_path, first_step=FIRST)


def test_a_checkpoint_without_schema_is_one_of_the_first_version(tmp_path):
    add(tmp_path, 2)
    path = folder_of(tmp_path, 2) / "state.json"
    state = own_json(path, cure="")
    del state["schema"]
    path.write_text(json.dumps(state))
    assert newest_whole(tmp_path, first_step=FIRST) == path.parent


def test_things_that_are_no_checkpoints_are_left_alone(tmp_path):
    add(tmp_path, 2)
    (tmp_path / OWN_CHECKPOINTS / "step-mine").mkdir()
    (tmp_path / OWN_CHECKPOINTS / "step-0000009").write_text("a file")
    assert newest_whole(tmp_path, first_step=FIRST) == folder_of(tmp_path, 2)
