"""The checkpoint folders of a stage: how one is added, and which one a training resumes from.

Workers of Ray and a single process write into folders of their own, and each resumes from the other's. A checkpoint is
written under another name and renamed, so a kill leaves none half written. Those that are damaged all the same, by a
power cut, a bad disk or a copy that ended early, are passed over.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.console import say
from jobs.training.checkpoint import Damaged, whole_state
from jobs.training.uploads import Uploads
from pipeline import store
from pipeline.errors import BadInput
from pipeline.files import partial_path, publish, remove_folder, sweep_partials

# Folders of checkpoints, inside the folder of a stage.
RAY_CHECKPOINTS = "ray_train"
OWN_CHECKPOINTS = "checkpoints"
_NAME = re.compile(r"step-(\d+)")


def add_checkpoint(stage: Path, place: str, step: int, write: Callable[[Path], None], *, keeps: int,
                   uploads: Uploads) -> None:
    """Write the checkpoint of a step into one of the two folders, and remove the oldest of both beyond `keeps`.

    In a store, the checkpoint of the step before is finished first, and `uploads` finishes this one. Checkpoints of
    later steps, which this training passed over, stay until it has reached them.
    """
    finished = stage / place / checkpoint_name(step)
    partial = partial_path(finished)
    uploads.wait()
    partial.mkdir(parents=True)
    sweep_partials(stage / place)

    def finish() -> None:
        with _removed_on_error(partial):
            remove_folder(finished)
            publish(partial, finished)
        for old in [path for path in checkpoints(stage) if _step(path) <= step][:-keeps]:
            remove_folder(old)

    with _removed_on_error(partial):
        write(partial)
    if store.in_store(stage):
        uploads.begin(finish)
    else:
        finish()


@contextmanager
def _removed_on_error(partial: Path) -> Iterator[None]:
    """Remove what is half written where an error comes: a full disk has room again."""
    try:
        yield
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def newest_whole(stage: Path, *, first_step: int) -> Path | None:
    """The checkpoint to resume from: the newest whole one of both folders. None where training starts at step 0.

    Prints every checkpoint that it passes over, and why. first_step: the step at which a training saves first. Where
    only that checkpoint is there and it is damaged, nothing else can be lost, and training starts at step 0. Raises
    Damaged where later ones are there and none is whole, and Mismatch for a checkpoint of another version.
    """
    store.look(stage)
    damaged = []
    for path in reversed(checkpoints(stage)):
        if (problem := _damage(path)) is None:
            return path
        say(f"passed over the checkpoint {path}: {problem}")
        damaged.append(path)
    if damaged and _step(damaged[0]) > first_step:
        raise Damaged(f"none of the {len(damaged)} checkpoints in {stage} is whole (the newest is {damaged[0]}, the "
                      "reasons are above). Copy a whole one there, or remove these folders to train from step 0: "
                      f"{', '.join(sorted({str(path.parent) for path in damaged}))}.")
    return None


def _damage(checkpoint: Path) -> str | None:
    """Why a checkpoint is not whole, None for one that is. Raises Mismatch for one of another version."""
    try:
        step = whole_state(checkpoint)["step"]
    except (BadInput, Damaged) as error:
        return str(error)
    except FileNotFoundError as error:
        return f"{error.filename} is missing."
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return f"{error.filename} cannot be read ({error.strerror})."
    return None if step == _step(checkpoint) else f"its state.json belongs to step {step}."


def checkpoint_name(step: int) -> str:
    """The folder name of one checkpoint."""
    return f"step-{step:07d}"


def checkpoints(stage: Path) -> list[Path]:
    """The folders of all checkpoints of a stage, oldest first; some may be damaged."""
    folders = (path for place in (RAY_CHECKPOINTS, OWN_CHECKPOINTS) for path in (stage / place).glob("step-*"))
    return sorted((path for path in folders if _NAME.fullmatch(path.name) and path.is_dir()), key=_step)


def _step(checkpoint: Path) -> int:
    return int(_NAME.fullmatch(checkpoint.name)[1])
