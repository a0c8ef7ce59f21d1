"""The option `--parity DIR`: where the recorded reference numbers of `tests/fidelity` lie."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity", metavar="DIR", default=None,
                     help="folder of recorded reference numbers, <family>/<case>.safetensors and .json")


def pytest_configure(config: pytest.Config) -> None:
    folder = config.getoption("--parity")
    if folder is None:
        return
    if not Path(folder).is_dir():
        raise pytest.UsageError(f"--parity {folder}: no such folder")
    from tests.fidelity import cases

    cases.use(Path(folder))
