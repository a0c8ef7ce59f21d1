"""What all tests share: fixed seeds, one thread, and where the optional data lie."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"     # reference numbers and small real videos; tests that need them skip without


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    np.random.seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Small real annotated videos, where a checkout has them."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real videos are not beside this checkout")
    return SHARED / "data"
