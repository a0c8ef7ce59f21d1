"""A verb that meets a full disk names the file and the cure, and goes on to the right bytes once there is room."""

from __future__ import annotations

import random
import re
import shutil
import tempfile
from functools import partial
from pathlib import Path

from tests.storm.forked import Ended
from tests.storm.kill_points import quota_from_change
from tests.storm.small_disk import can_mount, limit_files, make_room, small_file_system, used
from tests.storm.small_run import ORDER, SmallRun
from tests.storm.trials import Damage, Kind, refuse_crash, refuse_unless

ROOM = 2**30                # bytes of a file system that is large enough
SPACE = re.compile(r"room|space", re.IGNORECASE)


def meet_full_disk(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """Let the disk be full somewhere between the first and the last byte of a verb, then make room. Raises Damage."""
    ways = [limit_all_files, use_up_quota, *([fill_file_system] * 3 + [fill_temporary_folder] if can_mount() else ())]
    told = numbers.choice(ways)(run, verb, numbers)
    if differences := run.differences(run.after(verb)):
        raise Damage(f"{told}: {differences}")
    if run.place.is_mount():
        raise Damage("the small file system is still there")
    return 1


def fill_file_system(run: SmallRun, verb: str, numbers: random.Random) -> str:
    """A file system that fills up; returns in words how many bytes were free on it."""
    before, after = (used(run.folder / "before" / state) for state in (verb, run.after(verb)))
    free = numbers.randint(0, max(after - before, 4096) + 2**20)
    told = f"with {free} bytes free"
    shutil.rmtree(run.place, ignore_errors=True)
    run.place.mkdir()
    with small_file_system(run.place, before + free):
        shutil.copytree(run.folder / "before" / verb, run.place, symlinks=True, dirs_exist_ok=True)
        refuse_unnamed(run, verb, run.run(verb), told)
        make_room(run.place, ROOM)
        ended = run.run(verb)
        kept = run.folder / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(run.place, kept, symlinks=True)
    run.place.rmdir()
    kept.rename(run.place)
    refuse_crash(run, verb, ended)
    refuse_unless(ended.code == 0, f"{told}, then with room", ended)
    return told


def fill_temporary_folder(run: SmallRun, verb: str, numbers: random.Random) -> str:
    """A temporary folder with almost no room, while the run has enough."""
    run.bring(verb)
    told = "with a full temporary folder"
    folder = run.folder / "temporary"
    folder.mkdir(exist_ok=True)
    with small_file_system(folder, 4096 * numbers.randint(2, 16)):
        ended = run.run(verb, before=lambda: setattr(tempfile, "tempdir", str(folder)))
        refuse_unnamed(run, verb, ended, told, folder=folder)
    finish(run, verb, told)
    return told


def use_up_quota(run: SmallRun, verb: str, numbers: random.Random) -> str:
    """A quota that is used up before any change of a file."""
    run.bring(verb)
    change = numbers.randint(1, run.cost(verb).changes)
    told = f"with a quota that is used up at change {change}"
    refuse_unnamed(run, verb, run.run(verb, before=partial(quota_from_change, run.place, change)), told)
    finish(run, verb, told)
    return told


def finish(run: SmallRun, verb: str, told: str) -> None:
    """Run a verb that has room again. Raises Damage."""
    ended = run.run(verb)
    refuse_crash(run, verb, ended)
    refuse_unless(ended.code == 0, f"{told}, then with room", ended)


def limit_all_files(run: SmallRun, verb: str, numbers: random.Random) -> str:
    """A limit for every file that the verb writes; returns it in words."""
    run.bring(verb)
    size = int(2 ** numbers.uniform(8, 23))
    told = f"with files of at most {size} bytes"
    refuse_unnamed(run, verb, run.run(verb, before=partial(limit_files, size)), told)
    finish(run, verb, told)
    return told


def refuse_unnamed(run: SmallRun, verb: str, ended: Ended, when: str, *, folder: Path | None = None) -> None:
    """Raise Damage unless a verb has ended, or has named the file that it could not write and the cure.

    folder: where that file lies; by default anywhere in the place of the run.
    """
    refuse_crash(run, verb, ended)
    if ended.code == 0:         # there was room enough, or only the tracker lacked it
        return
    named = "error: " in ended.said and str(folder or run.place) in ended.said
    refuse_unless(named, f"{when}: no file is named", ended)
    refuse_unless(SPACE.search(ended.said) is not None, f"{when}: no cure is named", ended)


FULL_DISK = Kind(name="full-disk", verbs=ORDER, meet=meet_full_disk)
