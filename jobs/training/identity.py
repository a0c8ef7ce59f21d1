"""The identity of a training run: everything that decides its result, stored beside it as `identity.json`.

Versions of this project add settings. A setting that a stored identity lacks has its default value, which is how the
version that wrote the identity behaved: new settings are introduced with the old behaviour as their default. Where a
setting is there but meant something else, `_upgraded` gives it the value that says the same today.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.config import differences, from_json, to_json
from jobs.console import say
from pipeline.errors import Mismatch
from pipeline.files import atomic_write, remove_file, remove_folder
from pipeline.foreign_files import own_json
from pipeline.seals import sealed

IDENTITY = "identity.json"
VERSION = 2
STEPS = "stage.fit.steps: "     # start of the difference between runs of different length
DIVERGED = "diverged.json"      # written where training ended with numbers that are not finite

# Names -> configurations (dataclasses) and fingerprints of inputs.
Identity = Mapping[str, Any]


def claim_folder(folder: Path, identity: Identity, *, left_by_training: tuple[str, ...] = ()) -> None:
    """Store the identity of a training run in its folder, or check it against the one that is there.

    A run that diverged may be started again with other settings, also after it was started again with the same ones and
    stopped: `left_by_training`, its files and folders, is removed first. A finished run may be trained on, with more
    steps and all else equal. Raises Mismatch where the folder holds a run of other settings.
    """
    path = folder / IDENTITY
    if path.is_file():
        changed = identity_differences(path, identity)
        if _trains_on(folder, identity, changed):
            say(f"the finished run in {folder} is trained on: {changed[0]}")
            changed = []
        if changed and not (folder / DIVERGED).is_file():
            raise Mismatch(f"{path} is of a run with other settings (there != here): {'; '.join(changed[:8])}. "
                           f"Give this run another folder (--set folder=...), or remove {folder}.")
        if changed:
            say(f"the run in {folder} diverged; it is trained anew with other settings: {'; '.join(changed[:8])}")
            for name in left_by_training:
                remove_folder(folder / name)
            remove_file(folder / DIVERGED)
    folder.mkdir(parents=True, exist_ok=True)
    content = sealed({"version": VERSION, **plain(identity)})
    atomic_write(path, json.dumps(content, indent=1, sort_keys=True).encode())


def _trains_on(folder: Path, identity: Identity, changed: Sequence[str]) -> bool:
    """Whether a finished run is to take more steps, and nothing else differs."""
    if len(changed) != 1 or not changed[0].startswith(STEPS) or not (folder / "model" / "model.json").is_file():
        return False
    stored = own_json(folder / IDENTITY, cure="Give another folder (--set folder=...).")
    return stored["stage"]["fit"]["steps"] < plain(identity)["stage"]["fit"]["steps"]


def has_identity(folder: Path, identity: Identity) -> bool:
    """Whether the training in a folder is the one that is asked for."""
    path = folder / IDENTITY
    return path.is_file() and not identity_differences(path, identity)


def identity_differences(path: Path, identity: Identity) -> list[str]:
    """The fields in which a stored identity differs, as 'path: there != here'. Absent settings have their defaults.

    Raises BadInput for a stored identity that is cut off.
    """
    stored = _upgraded(own_json(path, cure="It tells which settings this run was trained with. Delete it to train on "
                                "with the settings given here, or give another folder (--set folder=...)."))
    try:
        stored |= {name: to_json(from_json(type(value), stored[name])) for name, value in identity.items()
                   if dataclasses.is_dataclass(value) and name in stored}
    except ValueError as error:
        return [f"the settings in {path} are of an older version, which this one cannot read, or damaged: {error}"]
    return differences(stored, plain(identity))


def _upgraded(stored: dict[str, Any]) -> dict[str, Any]:
    """A stored identity in the terms of this version, without its version."""
    stage = stored.get("stage")
    head = (stage.get("head") if isinstance(stage, dict) else None) or {}
    if stored.pop("version", 1) < 2 and "train_norms" in head:
        head["train_norms"] = True      # version 1 trained the norms that a head copies, whatever the setting said
    return stored


def plain(identity: Identity) -> dict[str, Any]:
    """The identity as JSON values."""
    return {name: to_json(value) if dataclasses.is_dataclass(value) else value for name, value in identity.items()}
