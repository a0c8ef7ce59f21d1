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


@pytest.mark.parametrize(("capabilities", "expected"), [
    ({"avx512_f": True, "avx512_bf16": True}, True), ({"avx512_bf16": False, "amx_bf16": True}, True),
    ({"avx512_f": True, "avx512_bf16": False}, False), ({"architecture": "aarch64", "bf16": True}, True), ({}, False)])
def test_the_instructions_of_a_cpu_decide(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_bf16.__wrapped__("cpu") == expected


def test_a_recipe_chooses_it_for_inference_alone():
    recipe = find_recipe("tiny")
    assert recipe.inference.precision == "fp32"
    assert override(recipe, ["inference.precision=auto"]).inference.precision == "auto"
    with pytest.raises(ValueError, match="precision"):
        override(recipe, ["stage_one.fit.precision=auto"])
