"""Predicted videos are exported by one command, from the folder that `jobs.predict` wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet

from jobs import export_tracks, predict
from jobs.export_tracks import ExportLine
from model.postprocess.panoptic import PanopticConfig
from tests.untrained_run import predicting, untrained_run, write_video


def test_what_was_predicted_is_exported(tmp_path):
    run = untrained_run(tmp_path / "run")
    everything = PanopticConfig(thing=0.0, stuff=0.0, pixel=0.05, overlap=0.0)
    run = replace(run, inference=replace(run.inference, panoptic=everything))
    run = predicting(run, write_video(tmp_path / "square.mp4"), tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        export_tracks.main(run, ExportLine())
    [video] = predict.main(run)["videos"]
    [file] = export_tracks.main(run, ExportLine(format="parquet"))["files"]
    rows = parquet.read_table(file).to_pylist()
    assert len([row for row in rows if row["result"] == "panoptic"]) == video["segments"] > 0
    assert {len(row["masks"]) for row in rows} == {5}
    assert Path(file).parent == tmp_path / "out" / "exports"
