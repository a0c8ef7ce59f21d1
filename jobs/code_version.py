"""The version of the running code, for model cards and recorded runs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from jobs.cluster import runtime_environment


def code_version() -> dict[str, Any]:
    """The commit of the running code, and whether the code differs from it.

    A submitted job runs in a copy without git. There the commit is the name of the package that Ray made of the code,
    which contains a hash of its content. It is 'unknown' where there is neither.
    """
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent,
                              check=True, timeout=10).stdout.strip()
    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": runtime_environment().get("working_dir", "unknown"), "changed": False}
