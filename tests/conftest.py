"""What all tests share: fixed seeds, one thread, and where the optional data lie."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

try:
    import torch
except ModuleNotFoundError:     # infra/check_newer_python.sh: where torch takes gigabytes, the other tests run
    torch = None

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"     # reference numbers and small real videos; tests that need them skip without


class WithoutTorch(pytest.Module):
    """A file of tests that is skipped if it needs torch."""

    def collect(self):
        try:
            return list(super().collect())
        except self.CollectError as error:
            if "No module named 'torch'" in str(error):
                pytest.skip("torch is not installed", allow_module_level=True)
            raise


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return WithoutTorch.from_parent(parent, path=module_path) if torch is None else None


@pytest.hookimpl(trylast=True)      # after those of other marks are gone
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no process is left with one when the other has nothing more to do.

    The run that many files share is made by the first file, and the others of them come later, when nobody has to wait
    for it any more. With xdist this takes `--no-loadscope-reorder`.
    """
    submits, shares, slow = ({item.path for item in items if wanted(item)} for wanted in (
        lambda item: "head" in item.fixturenames, lambda item: "finished_run" in item.fixturenames,
        lambda item: item.get_closest_marker("slow")))
    makes = {min(shares)} if shares else set()
    items.sort(key=lambda item: [item.path not in files for files in (makes, submits, slow - shares, shares)])


@pytest.fixture(autouse=True)
def _seeded():
    np.random.seed(0)
    if torch is not None:
        torch.manual_seed(0)
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Small real annotated videos, where a checkout has them."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real videos are not beside this checkout")
    return SHARED / "data"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """One small Ray for all tests of this process, with a home folder of its own: Ray keeps a token there."""
    import ray

    from jobs.cluster import ClusterConfig, connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("RAY_ADDRESS", raising=False)
        connect(ClusterConfig(object_store_mb=200))
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def finished_run(request, tmp_path_factory):
    """The finished run of recipe `tiny`. Not to be changed: `finished_run.copy(folder)` is."""
    from tests.runs import make_run

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return make_run(shared / "whole_line", lambda: request.getfixturevalue("cluster"))
