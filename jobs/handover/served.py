"""The file that MLflow runs to load a handed-over model. It is copied into the model, with the code that it imports.

    model = mlflow.pyfunc.load_model("models:/video_segmenter@newest")
    table = model.predict([{"video": "my_video.mp4"}], params={"every": 5})
"""

from __future__ import annotations

from pathlib import Path

import pandas
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from jobs.handover.answers import COLUMNS, answers
from jobs.handover.bundle import open_bundle


class VideoSegmenter(PythonModel):
    """A system behind MLflow's interface: a table of videos in, a table of tracks out."""

    def load_context(self, context) -> None:
        """Open the system. `model_config={"device": "cuda"}` moves it to a GPU."""
        self.system = open_bundle(Path(context.artifacts["system"]), device=context.model_config.get("device", "cpu"))

    def predict(self, context, model_input: pandas.DataFrame, params=None):     # without the type, MLflow warns
        """The rows of `answers` for a table with `video`, or `content` and `name`."""
        rows = answers(self.system, model_input.to_dict("records"), **(params or {}))
        return pandas.DataFrame(rows, columns=list(COLUMNS))


set_model(VideoSegmenter())
