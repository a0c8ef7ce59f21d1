"""What MLflow's own page shows of a run: who made it, by which command, code and data, and what to open."""

from __future__ import annotations

import getpass
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.cluster import inside_a_job
from pipeline.printable import without_secrets

NOTE = "mlflow.note.content"        # shown at the top of the page of a run, as Markdown
UNKNOWN = "unknown"                 # a commit, where there is no git


def source_tags(verb: str, code: Mapping[str, Any]) -> dict[str, str]:
    """User, source and commit under the names that MLflow gives them, and the command as the description.

    code: of `code_version`.
    """
    command = without_secrets(shlex.join(["python", *sys.orig_argv[1:]]))
    tags = {"mlflow.user": user(), "mlflow.source.name": f"jobs.{verb}", NOTE: f"`{command}`",
            "mlflow.source.type": "JOB" if inside_a_job() else "LOCAL"}
    return tags if code["commit"] == UNKNOWN else {**tags, "mlflow.source.git.commit": code["commit"]}


def user() -> str:
    """The name of the user; the number of one whom no file lists."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def run_note(*, name: str, about: str, folder: str, commands: Sequence[str]) -> str:
    """The description of a whole run as Markdown. commands: that make its page and go on with it, if any."""
    described = f"**{name}**: {about}\n\nFolder: `{folder}`\n"
    if not commands:
        return described
    lines = without_secrets("\n".join(f"    {command}" for command in commands))
    return (f"{described}\nThe report is `report.html` among the artifacts, once it is made. Commands:\n\n{lines}\n")
