"""The log of a submitted job, and which of its lines come from elsewhere than from the verbs."""

from __future__ import annotations

import json
import re
from typing import Any

COLORS = re.compile(r"\x1b\[\d*m")
# What Ray puts before the lines of the processes that do the work of a verb.
OURS = re.compile(r"^\((RayTrainWorker|MapWorker|Worker)\b.*? pid=[^)]*\) ")

# What loggers, Ray's and torch's native code, Python's warnings, MLflow and processes of Ray begin their lines with.
FOREIGN = re.compile(r"\[?\d{4}[-/]\d\d[-/]\d\d[ T]|\[[DIWEF]\d{4} |.*Warning: |Traceback|🏃|🧪"
                     r"|\(.* pid=|\((raylet|autoscaler)\b")
ALLOWED = re.compile(
    r".* worker\.py:\d+ -- (Using address|Connecting to existing Ray cluster|Connected to Ray cluster)"
    r"|.* core_worker\.cc:\d+: Actor with class name: 'MapWorker.* max_restarts > 0"      # Ray can only hide all errors
    r"|.* sdk\.py:\d+ -- WebSocket closed for job")      # of `ray job submit`, whose two streams mix


def foreign_lines(log: str) -> list[str]:
    """The lines of a job that are neither ours nor allowed; those of `ray job submit` itself are around it."""
    log = COLORS.sub("", log)
    lines = log[log.index("Running entrypoint"):log.rindex('{"verb"')].splitlines()
    said = (OURS.sub("", line, count=1) for line in lines)
    return [line for line in said if FOREIGN.match(line) and not ALLOWED.match(line)]


def summaries(log: str) -> dict[str, dict[str, Any]]:
    """Verb -> its last line, of those that ended well, in their order."""
    said = [json.loads(line) for line in log.splitlines() if line.startswith('{"verb"')]
    return {summary.pop("verb"): summary for summary in said}
