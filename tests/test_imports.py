"""jobs -> pipeline -> model, never back; each large library is imported in the few files that are meant to know it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Room -> other rooms it may know.
ROOMS = {"model": {"model"}, "pipeline": {"model", "pipeline"}, "jobs": {"model", "pipeline", "jobs"}}

# Library -> where it may be imported: files, or rooms with a slash at the end.
LIBRARIES = {
    "ray": ("jobs/", "pipeline/streams.py"),
    "mlflow": ("jobs/training/tracking.py", "jobs/handover/mlflow_model.py", "jobs/handover/served.py"),
    "huggingface_hub": ("jobs/handover/hub.py",),
    "timm": ("model/axial_resnet.py", "model/backbone.py", "model/stdc.py"),
    "torchvision": (),
    "tyro": ("jobs/",),
}

# What `model/` may import besides itself and those parts of the standard library that touch no file and no process.
MODEL_LIBRARIES = {"torch", "timm", "numpy", "scipy", "einops", "pycocotools"}
OUTSIDE = {"pathlib", "os", "io", "tempfile", "shutil", "subprocess", "socket", "pickle", "glob", "urllib"}


def imports(path: Path, source: str | None = None) -> Iterator[tuple[str, int]]:
    """(module, line) of every import of a file, also of those inside functions."""
    for node in ast.walk(ast.parse(source if source is not None else path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide the room; write it out"
            yield node.module, node.lineno


def complaints(file: str, found: Iterator[tuple[str, int]]) -> Iterator[str]:
    """What is wrong with the imports of one file of a room."""
    room = file.split("/")[0]
    for module, line in found:
        top = module.split(".")[0]
        if (top in ROOMS and top not in ROOMS[room]) or top in ("tests", "benchmarks"):
            yield f"{file}:{line}: {room}/ must not know {module}"
        if top in LIBRARIES and not any(file == place or (place.endswith("/") and file.startswith(place))
                                        for place in LIBRARIES[top]):
            yield f"{file}:{line}: {top} may be imported only in {', '.join(LIBRARIES[top]) or 'no file'}"
        if room == "model" and top in OUTSIDE:
            yield f"{file}:{line}: model/ touches neither files nor processes, so no {module}"


# Folders of `pipeline/` with one door: files outside import from the folder, never from a file inside it.
WINGS = ("clips", "predictions", "query_cache", "training_input")


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_no_arrow_points_back(room):
    assert len(sources(room)) > 5
    assert [complaint for path in sources(room)
            for complaint in complaints(path.relative_to(ROOT).as_posix(), imports(path))] == []


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_is_entered_by_its_door(wing):
    door = f"pipeline.{wing}"
    around = [f"{path.relative_to(ROOT)}:{line}: import from {door}, not from {module}"
              for room in (*ROOMS, "benchmarks") for path in sources(room)
              if path.parent != ROOT / "pipeline" / wing
              for module, line in imports(path) if module.startswith(f"{door}.")]
    assert around == []


# Part of `jobs/` -> modules it must not import: recipes hold the settings of training, training knows no recipe, and
# neither knows a command.
VERBS = tuple(f"jobs.{path.stem}" for path in (ROOT / "jobs").glob("*.py")
              if path.stem == "verb" or "__main__" in path.read_text())
BELOW = {"training": ("jobs.recipes", "jobs.models", *VERBS), "recipes": ("jobs.models", *VERBS)}


@pytest.mark.parametrize("part", BELOW)
def test_recipes_and_training_do_not_import_each_other_nor_a_command(part):
    assert {"jobs.verb", "jobs.train_stage_one", "jobs.predict"} <= set(VERBS)
    back = [f"{path.relative_to(ROOT)}:{line}: jobs/{part} must not know {module}"
            for path in sources(f"jobs/{part}") for module, line in imports(path)
            if module == "jobs" or any(module == other or module.startswith(f"{other}.") for other in BELOW[part])]
    assert back == []


def test_model_needs_six_libraries_only():
    stray = [f"{path.relative_to(ROOT)}:{line}: {module}" for path in sources("model")
             for module, line in imports(path)
             if module.split(".")[0] not in MODEL_LIBRARIES | {"model"} | sys.stdlib_module_names]
    assert stray == []


@pytest.mark.parametrize(("file", "source", "said"), [
    ("model/new.py", "import torch\nfrom pipeline.records import Segment", "model/new.py:2: model/ must not know"),
    ("pipeline/new.py", "def late():\n    from jobs.verb import run", "pipeline/new.py:2: pipeline/ must not know"),
    ("pipeline/new.py", "import ray.data", "pipeline/new.py:1: ray may be imported only in jobs/, pipeline/streams.py"),
    ("jobs/verb.py", "from mlflow import MlflowClient", "mlflow may be imported only in jobs/training/tracking.py"),
    ("model/layers/new.py", "import timm.layers", "timm may be imported only in model/axial_resnet.py, "),
    ("model/new.py", "import os", "model/ touches neither files nor processes"),
])
def test_an_arrow_that_points_back_is_named_with_file_and_line(file, source, said):
    assert [said in complaint for complaint in complaints(file, imports(Path(file), source))] == [True]
