"""Each part of a run starts from a model of its own; what does not fit is refused by name, what is random is listed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jobs.models import read_card, save_model
from jobs.recipes import find_recipe
from jobs.recipes.schema import JointConfig, Recipe
from jobs.start_weights import fill, refuse_unfit_starts
from jobs.verb import guarded
from model.backbone import BackboneConfig
from pipeline.errors import Mismatch

VITA = find_recipe("tiny_vita")
ONE = "stage_one.start_from"
JOINT = "stage_one.joint.start_from"
TWO = "stage_two.start_from"


def starting(*, one: Path | str = "", joint: Path | str = "", two: Path | str = "") -> Recipe:
    """The tiny VITA with these starts; its head trains along where `joint` is given."""
    recipe = replace(VITA, stage_one=replace(VITA.stage_one, start_from=str(one)))
    if not joint:
        return replace(recipe, stage_two=replace(VITA.stage_two, start_from=str(two)))
    along = JointConfig(head=VITA.stage_two.head, losses=VITA.stage_two.losses, layers=2, start_from=str(joint))
    return replace(recipe, stage_two=None, stage_one=replace(recipe.stage_one, joint=along))


def finished(folder: Path, **changes) -> tuple[Path, Path]:
    """Folders of a segmenter, with fields of its config replaced, and of the head that belongs to it."""
    torch.manual_seed(7)
    save_model(folder / "segmenter", replace(VITA.stage_one.segmenter, **changes).build().state_dict(),
               {"kind": "segmenter", "config": {}})
    read = read_card(folder / "segmenter")["weights_sha256"]
    save_model(folder / "head", VITA.stage_two.head.build().state_dict(),
               {"kind": "head", "config": {}, "segmenter_sha256": read})
    return folder / "segmenter", folder / "head"


def test_a_part_takes_the_weights_that_fit_and_lists_those_that_do_not(tmp_path, capsys):
    segmenter, _ = finished(tmp_path, num_classes=9)
    part = VITA.stage_one.segmenter.build()
    before = {name: weight.clone() for name, weight in part.state_dict().items()}
    fill(part, starting(one=segmenter), ONE)
    rows = {"query_decoder.class_head.weight", "query_decoder.class_head.bias"}
    torch.manual_seed(7)
    theirs = replace(VITA.stage_one.segmenter, num_classes=9).build().state_dict()
    for name, weight in part.state_dict().items():
        assert weight.equal(before[name] if name in rows else theirs[name]), name
    said = capsys.readouterr().out
    assert f"segmenter starts from {segmenter}" in said
    listed = said.split("from scratch: ")[1].split("; unused: ")
    assert all(sorted(rows) == sorted(eval(names)) for names in listed)


def test_a_part_without_a_start_keeps_its_own_weights(capsys):
    part = VITA.stage_two.head.build()
    before = {name: weight.clone() for name, weight in part.state_dict().items()}
    fill(part, starting(), TWO)
    assert all(weight.equal(before[name]) for name, weight in part.state_dict().items())
    assert not capsys.readouterr().out


def test_another_network_is_refused_by_the_name_of_its_part(tmp_path):
    segmenter, _ = finished(tmp_path, backbone=BackboneConfig(name="test_convnext"))
    with pytest.raises(ValueError, match=rf"{ONE}=.*: no weight of backbone fits this recipe"):
        fill(VITA.stage_one.segmenter.build(), starting(one=segmenter), ONE)
    wide = replace(VITA.stage_one.segmenter.query_decoder, ffn=64)
    segmenter, _ = finished(tmp_path / "wide", query_decoder=wide)
    with pytest.raises(ValueError, match=r"has the shape \(64, 64\) there and \(256, 64\) in this recipe|"
                                         r"has the shape \(64, 64\) there and \(64, 256\) in this recipe"):
        fill(VITA.stage_one.segmenter.build(), starting(one=segmenter), ONE)


@pytest.mark.parametrize(("stage", "starts", "complaint", "setting"), [
    ("stage_one", {"one": "head"}, "holds a head, a segmenter is needed", ONE),
    ("stage_one", {"one": "segmenter", "joint": "segmenter"}, "holds a segmenter, a head is needed", JOINT),
    ("stage_one", {"joint": "nowhere"}, r"no finished model in .*nowhere", JOINT),
    ("stage_two", {"two": "nowhere"}, r"no finished model in .*nowhere", TWO)])
def test_a_start_that_is_missing_or_of_the_other_kind_is_refused_with_its_setting(
        tmp_path, capsys, stage, starts, complaint, setting):
    finished(tmp_path)
    recipe = starting(**{part: tmp_path / name for part, name in starts.items()})
    assert guarded(lambda chosen: refuse_unfit_starts(chosen, stage), lambda: recipe) == 2
    said = capsys.readouterr().err
    assert f"{setting} names this folder" in said
    with pytest.raises((ValueError, FileNotFoundError), match=complaint):
        refuse_unfit_starts(recipe, stage)


def test_detector_and_head_that_learn_together_start_from_one_run(tmp_path):
    segmenter, head = finished(tmp_path)
    refuse_unfit_starts(starting(one=segmenter, joint=head), "stage_one")
    other, _ = finished(tmp_path / "other", num_classes=9)
    with pytest.raises(Mismatch, match=r"name two parts of one run, or set stage_one\.joint\.start_from= "):
        refuse_unfit_starts(starting(one=other, joint=head), "stage_one")


def test_a_head_of_stage_two_is_checked_only_when_stage_two_begins(tmp_path):
    refuse_unfit_starts(starting(two=tmp_path / "nowhere"), "stage_one")
