"""Mixed precision, in training and at test time."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]
TestPrecision = Literal[Precision, "auto"]      # auto: bf16 where the hardware computes in it, otherwise fp32

_CPU_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")     # of x86, of its matrix units, of ARM


def autocast(device: torch.device, precision: TestPrecision) -> contextlib.AbstractContextManager:
    """Mixed precision. Does nothing for fp32, nor for fp16 on a CPU, where it would not be faster."""
    if precision == "auto":
        precision = "bf16" if has_bf16(device.type) else "fp32"
    if precision == "fp32" or (precision == "fp16" and device.type == "cpu"):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


@cache
def has_bf16(kind: str) -> bool:
    """Whether this machine's "cpu" or "cuda" device has instructions for bfloat16; emulated, it would be slower."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(instruction, False) for instruction in _CPU_INSTRUCTIONS)
