"""MLflow's own page, in a browser, answers which run is best: its columns hold the scores, and the run its report."""

from __future__ import annotations

import pytest

from jobs.training.tracking import TrackingConfig
from tests.browser import look_at, needs_chromium
from tests.jobs.training.test_tracking import verb
from tests.jobs.training.test_whole_run import log_everything
from tests.storm.mlflow_server import Server, running

pytestmark = [pytest.mark.slow, needs_chromium]

TEXT = "({text: document.body.innerText})"


def test_the_page_shows_the_scores_the_description_and_the_report(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.training.tracker.LAST_SECONDS", 120.0)    # a busy machine takes longer than 20
    with running(Server(tmp_path / "server")) as server:
        ids = log_everything(verb(TrackingConfig(uri=server.uri), tmp_path / "run"), tmp_path / "run")
        assert ids["page"].startswith(f"{server.uri}/#/experiments/")
        parent = ids["page"].replace(ids["run_id"], ids["parent_id"])
        seen = look_at(parent, width=1400, script=TEXT, wait_for="document.body.innerText.includes('vpq_percent')")
        assert "near_online/vpq_percent" in seen["text"]
        assert "near_online/switches" in seen["text"]
        assert "75.5" in seen["text"]
        assert "to repeat it:" in seen["text"]
        files = look_at(f"{parent}/artifacts", width=1400, script=TEXT,
                        wait_for="document.body.innerText.includes('report.html')")
        assert "report.html" in files["text"]
        table = look_at(parent.partition("/runs/")[0] + "/runs?viewStateShareKey=", width=1800, script=TEXT,
                        wait_for="document.body.innerText.includes('Run Name')")
        assert "Run Name" in table["text"]
