"""The Python call of the project under one name, beside other packages called `jobs`, `model` or `pipeline`.

    from maxtron_on_ray import load_system
    video = load_system("runs/demo").predict("my_video.mp4").panoptic

The names below are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.config import override
    from jobs.handover.hub import from_hub, push_to_hub
    from jobs.models import load_system
    from jobs.recipes import find_recipe
    from jobs.recipes.schema import Recipe
    from model.contracts import PanopticVideo, SemanticVideo, Track, Tracks, VideoResults, VideoSegment
    from model.inference import InferenceConfig
    from model.labels import ClassTable
    from pipeline.system import System

__all__ = ["ClassTable", "InferenceConfig", "PanopticVideo", "Recipe", "SemanticVideo", "System", "Track", "Tracks",
           "VideoResults", "VideoSegment", "find_recipe", "from_hub", "load_system", "override",
           "push_to_hub"]

_HOME = {"override": "jobs.config", "from_hub": "jobs.handover.hub", "push_to_hub": "jobs.handover.hub",
         "load_system": "jobs.models", "find_recipe": "jobs.recipes",
         "Recipe": "jobs.recipes.schema", "InferenceConfig": "model.inference", "ClassTable": "model.labels",
         "System": "pipeline.system",
         **dict.fromkeys(("PanopticVideo", "SemanticVideo", "Track", "Tracks", "VideoResults", "VideoSegment"),
                         "model.contracts")}


def refuse_foreign() -> None:
    """Raise ImportError where Python finds another package than ours under a name that this project needs."""
    root = Path(__file__).resolve().parents[1]
    for name in ("jobs", "model", "pipeline"):
        spec = find_spec(name)
        place = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if place != root / name / "__init__.py":
            where = place or "nothing" if spec is None or place else f"a folder without __init__.py: {name}"
            raise ImportError(f"Python finds {where} under the name `{name}`, and maxtron_on_ray needs its own, "
                              f"{root / name}. Start Python in another folder (or with -P), take the other one out of "
                              "PYTHONPATH, or uninstall it")


refuse_foreign()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
