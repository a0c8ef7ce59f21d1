"""Where a recipe was changed after a part of its run was made: each verb that reads the part tells what differs.

Training refuses other settings of its own (`jobs/training/identity.py`). A verb that reads shards or a model takes them
as they are, and says so.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.config import differences, to_json
from jobs.recipes.schema import Recipe
from jobs.training.identity import IDENTITY, identity_differences
from pipeline.errors import BadInput
from pipeline.files import atomic_write
from pipeline.foreign_files import own_json
from pipeline.seals import sealed

NOTE = "made_from.json"         # in the folder of all shards: name of a set -> data set and settings

READS_SHARDS = ("train_stage_one", "cache_queries", "evaluate")
READS_MODELS = ("cache_queries", "evaluate", "predict")


def note_sources(recipe: Recipe) -> None:
    """Store what the shards of a run were made from. A finished run that is read-only stays as it is."""
    content = json.dumps(sealed(_sources(recipe)), indent=1, sort_keys=True).encode()
    try:
        atomic_write(recipe.shards_run / "shards" / NOTE, content)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


def changed_since(recipe: Recipe, verb: str) -> list[str]:
    """A line for each part of the run that the verb reads and that was made with other settings."""
    return [*(_other_shards(recipe) if verb in READS_SHARDS else ()),
            *(_other_models(recipe) if verb in READS_MODELS else ())]


def _other_shards(recipe: Recipe) -> Iterator[str]:
    folder = recipe.shards_run / "shards"
    with suppress(BadInput, OSError):       # of an earlier version, or damaged: make_shards writes it again
        now = _sources(recipe)
        stored = own_json(folder / NOTE, cure="")
        for name in sorted(name for name in now if _is_source(stored.get(name))):
            if not recipe.data_root.is_dir():       # the data may be elsewhere by now
                now[name]["dataset"]["root"] = stored[name]["dataset"]["root"]
            if changed := differences(stored[name], now[name]):
                yield (f"note: the shards in {folder / name} were made with other settings (there != here): "
                       f"{'; '.join(changed[:8])}. They are used as they are. For shards with these settings, run "
                       f"make_shards with another folder (--set folder=...), or remove {folder} and the models of it")


def _is_source(stored: Any) -> bool:
    """Whether a value of the note is what `_sources` writes; one without a seal may be of anybody."""
    return isinstance(stored, dict) and all(isinstance(stored.get(part), dict) for part in ("dataset", "shards")) \
        and "root" in stored["dataset"]


def _other_models(recipe: Recipe) -> Iterator[str]:
    stages = {"stage_one": (recipe.segmenter_folder, recipe.stage_one.unscored),
              "stage_two": (recipe.head_folder, recipe.stage_two)}
    for name, (model, stage) in stages.items():
        path = model.parent / IDENTITY
        if stage is None or not path.is_file() or not model.is_dir():
            continue
        with suppress(BadInput, OSError):
            changed = [f"{name}{line.removeprefix('stage')}" for line in identity_differences(path, {"stage": stage})
                       if line.startswith("stage.")]
            if changed:
                yield (f"note: the model in {model} was trained with other settings (there != here): "
                       f"{'; '.join(changed[:8])}. It is used as it is. To train with these settings, give the run "
                       "another folder (--set folder=...)")


def _sources(recipe: Recipe) -> dict[str, Any]:
    """Name of a set of shards -> its data set, whose root is relative to the run, and the settings of shards."""
    def relative(root: str) -> str:
        return os.path.relpath(Path(root).absolute(), recipe.shards_run)

    return {name: {"dataset": to_json(replace(source, root=relative(source.root))), "shards": to_json(recipe.shards)}
            for name, source in recipe.sources.items()}
