"""bf16 is chosen where the hardware has it, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jobs.config import override
from jobs.recipes import find_recipe
from model import precision as module
from model.precision import autocast, has_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize(("has_it", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bf16_where_the_hardware_has_it(monkeypatch, has_it, expected):
    monkeypatch.setattr(module, "has_bf16", lambda kind: has_it)
    with autocast(CPU, "auto"):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == expected


@pytest.mark.parametrize(("line", "expected"), [
    ("flags\t\t: fpu avx512f avx512_bf16 amx_tile", True), ("flags\t\t: fpu avx2 avx512f", False),
    ("Features\t: fp asimd bf16", True), ("Features\t: fp asimd", False), ("model name\t: bf16", False)])
def test_the_flags_of_a_cpu_decide(monkeypatch, tmp_path, line, expected):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    monkeypatch.setattr(module, "CPU_INFO", tmp_path / "cpuinfo")
    assert has_bf16.__wrapped__("cpu") == expected


def test_a_system_that_lists_no_flags_has_none(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "CPU_INFO", tmp_path / "missing")
    assert not has_bf16.__wrapped__("cpu")


def test_a_recipe_chooses_it_for_inference_alone():
    recipe = find_recipe("tiny")
    assert recipe.inference.precision == "fp32"
    assert override(recipe, ["inference.precision=auto"]).inference.precision == "auto"
    with pytest.raises(ValueError, match="precision"):
        override(recipe, ["stage_one.fit.precision=auto"])
