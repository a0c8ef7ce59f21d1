"""Writes a system as a model of MLflow that needs no clone: weights as safetensors, the code, and what to install."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from jobs.handover.answers import COLUMNS
from jobs.training.tracking import mlflow_module

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("jobs", "pipeline", "model")            # whose code goes into the model
UNUSED = {"ray", "webdataset", "tyro", "matplotlib", "jinja2", "tqdm", "huggingface_hub"}     # by inference
SERVED = Path(__file__).with_name("served.py")


def write_model(folder: Path, bundle: Path, card: Mapping[str, Any]) -> None:
    """Write the model into a folder that does not exist. bundle: of the system. card: its `system.json`.

    Nothing in the model is pickled.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow_module()
    with warnings.catch_warnings():     # about types that MLflow's own models lack
        warnings.simplefilter("ignore")
        from mlflow.models import ModelSignature
        from mlflow.pyfunc import save_model
        from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    given = {"video": "string", "content": "binary", "name": "string"}
    signature = ModelSignature(
        inputs=Schema([ColSpec(kind, name, required=False) for name, kind in given.items()]),
        outputs=Schema([ColSpec(kind, name) for name, kind in COLUMNS.items()]),
        params=ParamSchema([ParamSpec("every", "long", 1), ParamSpec("threshold", "double", 0.0)]))
    with tempfile.TemporaryDirectory(dir=folder.parent, suffix=".partial") as scratch:
        code = [Path(scratch) / package for package in PACKAGES]
        for package in code:
            shutil.copytree(ROOT / package.name, package, ignore=shutil.ignore_patterns("__pycache__"))
        with warnings.catch_warnings():     # of an input example, which the model would be called with
            warnings.simplefilter("ignore")
            save_model(folder, python_model=str(SERVED), artifacts={"system": str(bundle)},
                       code_paths=list(map(str, code)), signature=signature, pip_requirements=requirements(),
                       model_config={"device": "cpu"},
                       metadata={name: card[name] for name in ("recipe", "mode", "digest")})


def requirements() -> list[str]:
    """What inference needs of the requirements of this project on this machine, at the versions that are installed."""
    needed = [Requirement(line) for line in requires("maxtron-on-ray") or ()]
    names = [each.name for each in needed if each.name not in UNUSED
             and (each.marker is None or each.marker.evaluate({"extra": ""}))]
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]
