"""Mixed precision, in training and at test time."""

from __future__ import annotations

import contextlib
from functools import cache
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]
TestPrecision = Literal[Precision, "auto"]      # auto: bf16 where the hardware computes in it, otherwise fp32

CPU_INFO = Path("/proc/cpuinfo")
_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}        # of x86, of x86 with matrix units, of ARM


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
    try:
        text = CPU_INFO.read_text()
    except OSError:                 # not Linux
        return False
    lists = (line.partition(":")[2].split() for line in text.splitlines() if line.lower().startswith(("flags", "feat")))
    return not _CPU_FLAGS.isdisjoint(next(lists, ()))
