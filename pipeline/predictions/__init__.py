"""Predictions on disk: writing them in a choice of formats, and reading them back."""

from pipeline.predictions.formats import FormatName, default_formats, refuse_unfit_formats
from pipeline.predictions.kept import kept_results, kept_times
from pipeline.predictions.reading import Predictions, read_prediction_manifest, read_predictions
from pipeline.predictions.rows import track_rows
from pipeline.predictions.selection import Selection
from pipeline.predictions.server_results import (
    ServerTracks,
    listed_videos,
    read_listed_videos,
    read_results,
    read_server_tracks,
    write_results,
)
from pipeline.predictions.writer import PredictionWriter, earlier_videos

__all__ = ["FormatName", "PredictionWriter", "Predictions", "Selection", "ServerTracks", "default_formats",
           "earlier_videos", "kept_results", "kept_times", "listed_videos", "read_listed_videos",
           "read_prediction_manifest", "read_predictions", "read_results", "read_server_tracks",
           "refuse_unfit_formats", "track_rows", "write_results"]
