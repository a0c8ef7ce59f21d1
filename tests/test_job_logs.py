"""Lines of a submitted job that do not come from the verbs are found, and only these."""

from __future__ import annotations

import pytest

from tests.job_logs import foreign_lines

LOG = """2026-11-30 14:55:56,244	INFO cli.py:42 -- Job submission server address
Running entrypoint for job raysubmit_t23: python -m jobs.predict --recipe tiny
jobs.predict: loading the libraries
2026-11-30 14:56:16,877	INFO worker.py:1691 -- Using address 192.0.2.2:51907 set in the environment variable RAY_ADDRESS
2026-11-30 14:56:17,173	INFO worker.py:2029 -- Connected to Ray cluster. View the dashboard at \x1b[1m\x1b[32mhttp://x
jobs.predict was at work in /run/predictions (host h1, process 20808, since 2026-11-30 14:54:04) and is gone; continuing
\x1b[36m(RayTrainWorker pid=294, ip=192.0.2.2)\x1b[0m step 00001/6 (16.7%) | loss 30.503
{line}
{{"verb": "jobs.predict"}}
ended with 0
2026-11-30 15:02:30,762	SUCC cli.py:66 -- ------------------------------------------
"""


def test_a_log_of_the_verbs_and_of_the_connection_has_none():
    assert foreign_lines(LOG.format(line="1 videos in /run/predictions")) == []


@pytest.mark.parametrize("line", [
    "2026-11-30 14:56:17,173 INFO worker.py:1 -- Calling ray.init() again",
    "2026/11/30 14:56:17 INFO mlflow.store.db.utils: Creating initial MLflow database tables...",
    "[2026-11-30 14:56:49,121 E 22560 22560] core_worker.cc:1: Something else",
    "[W1130 14:56:50.880146518 socket.cpp:207] [c10d] The hostname of the client socket cannot be retrieved.",
    "/site-packages/torch/nn/x.py:3: UserWarning: Something",
    "Traceback (most recent call last):",
    "🏃 View run evaluate_offline at: http://192.0.2.1:5000/#/experiments/1/runs/1",
    "\x1b[36m(TrainController pid=3)\x1b[0m Running training",
    "\x1b[36m(raylet, ip=192.0.2.3)\x1b[0m The node has been drained",
])
def test_a_line_of_another_program_is_one(line):
    plain = line.replace("\x1b[36m", "").replace("\x1b[0m", "")
    assert foreign_lines(LOG.format(line=line)) == [plain]
    assert foreign_lines(LOG.format(line=f"(MapWorker(Map(_Stage)) pid=7) {line}")) == [plain]
