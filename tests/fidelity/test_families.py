"""No recorded number is left unread: every family has a test file, and the helper notices what a test forgets."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.fidelity import cases
from tests.fidelity.cases import SUBSET, Ledger, assert_close_to, families_asked_for, load_case, roots

# The smallest cases of Mask2Former's pixel decoder, of the clip decoder, of linking, and of VITA's head and inference
# have 1 to 3 MB and stay outside.
CARRIED = {
    "trajectory_attention", "position_encoding", "deformable_attention", "within_clip_module",
    "cross_clip_kmax", "kmax_pixel_decoder", "kmax_transformer_decoder", "maxtron_transformer_decoder",
    "kmax_criterion", "kmax_image", "panoptic_postprocess", "mask_resize", "clip_matching", "tubelink_clip_matching",
    "video_inference", "metric_video_panoptic", "metric_youtube_vis", "tubelink_losses", "tubelink_pixel_decoder",
    "cross_clip_tubelink", "mask2former_frame_decoder", "vita_losses"}


@pytest.fixture
def _all_asked() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):
        runpy.run_path(str(path))     # asks for its cases while it is read


@pytest.mark.usefixtures("_all_asked")
def test_every_family_has_a_test():
    handled = families_asked_for()
    present = {path.name for root in roots() for path in root.iterdir() if path.is_dir()}
    assert present - handled == set()


@pytest.mark.usefixtures("_all_asked")
def test_every_file_belongs_to_a_case_that_runs():
    """Numbers without their json, a json without its numbers, or files in another family's format are failures."""
    assert cases.passed_over() == []


@pytest.mark.parametrize("stray", ["clip_matching/lost.json", "clip_matching/lost.safetensors",
                                   "metric_video_panoptic/lost.json", "clip_matching/folder/expected.json"])
def test_a_file_nobody_reads_is_found(tmp_path, monkeypatch, stray):
    for family in ("clip_matching", "metric_video_panoptic"):
        shutil.copytree(SUBSET / family, tmp_path / family)
    monkeypatch.setattr(cases, "_chosen", tmp_path)
    cases.cases("clip_matching"), cases.case_folders("metric_video_panoptic")
    assert cases.passed_over() == []
    (tmp_path / stray).parent.mkdir(exist_ok=True)
    (tmp_path / stray).write_text("{}")
    cases.cases("clip_matching"), cases.case_folders("metric_video_panoptic")
    assert cases.passed_over() == [tmp_path / stray]


def test_the_repository_holds_a_small_case_of_every_family_that_has_one():
    """So a fresh clone proves itself; each is the recorded one, byte by byte, where all lie beside the checkout."""
    sizes = {path: path.stat().st_size for path in SUBSET.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 10_000_000
    assert {path.relative_to(SUBSET).parts[0] for path in sizes if len(path.relative_to(SUBSET).parts) > 1} >= CARRIED
    for path in sizes:
        recorded = cases.BESIDE / path.relative_to(SUBSET)
        if path.parent != SUBSET and recorded.exists():
            assert path.read_bytes() == recorded.read_bytes(), path


@pytest.fixture
def case_path(tmp_path: Path) -> Path:
    save_file({"input.x": torch.ones(2), "output.y": torch.tensor([1.0, 2.0]), "output.n": torch.tensor([3]),
               "output.grad.w": torch.tensor([0.0, 10.0]), "state.w": torch.zeros(1)},
              tmp_path / "any.safetensors")
    info = {"family": "f", "procedure": "p", "arguments": {"dim": 4}, "tolerance": {"atol": 0.1, "rtol": 0.0}}
    (tmp_path / "any.json").write_text(json.dumps(info))
    return tmp_path / "any.json"


def read_all(case) -> None:
    assert case.arguments["dim"] == 4
    assert case.inputs["x"].shape == (2,)
    assert_close_to(case, "y", torch.tensor([1.05, 1.95]))
    assert_close_to(case, "n", torch.tensor([3]))
    assert_close_to(case, "grad.w", torch.tensor([0.0009, 10.0]))


def test_a_case_whose_every_part_is_used_passes(case_path):
    with load_case(case_path) as case:
        read_all(case)
    assert list(case.state) == ["w"]


@pytest.mark.parametrize(("part", "name"), [("arguments", "dim"), ("inputs", "x"), ("outputs", "y")])
def test_a_part_nobody_reads_is_a_failure(case_path, part, name):
    case = load_case(case_path)
    read_all(case)
    ledger = getattr(case, part)
    ledger._read.discard(name)
    with pytest.raises(AssertionError, match=rf"\['{name}'\] are not handled"):
        case.check_complete()


@pytest.mark.parametrize(("name", "result"), [
    ("y", [1.2, 2.0]), ("y", [float("nan"), 2.0]), ("y", [1.0, 2.0, 3.0]), ("n", [4]), ("grad.w", [0.002, 10.0]),
], ids=str)
def test_numbers_off_by_more_than_the_tolerance_fail(case_path, name, result):
    with pytest.raises(AssertionError, match=re.escape(f"f/any output {name!r}")):
        assert_close_to(load_case(case_path), name, torch.tensor(result))


def test_arguments_inside_arguments_have_to_be_read_too_unless_they_are_set_aside():
    ledger = Ledger({"decoder": {"dim": 4, "norm": {"groups": 32}}, "seed": 1}, deep=True)
    assert ledger.unread == ["decoder", "seed"]
    assert ledger["decoder"]["dim"] == 4
    assert ledger.unread == ["decoder.norm", "seed"]
    assert ledger["decoder"]["norm"] == {"groups": 32}
    ledger.set_aside("seed", "absent")
    assert ledger.unread == []


def test_asking_whether_something_is_there_does_not_count_as_reading():
    ledger = Ledger({"mask": 1})
    assert "mask" in ledger
    assert ledger.unread == ["mask"]
    assert dict(ledger) == {"mask": 1}
    assert ledger.unread == []
