"""Predictions on disk: writing them, reading them back, and the layouts of the official tools."""

from pipeline.predictions.reading import Predictions, read_predictions
from pipeline.predictions.writer import PredictionWriter
from pipeline.predictions.youtube_vis import read_listed_videos, read_results, write_results

__all__ = ["PredictionWriter", "Predictions", "read_listed_videos", "read_predictions", "read_results", "write_results"]
