"""A verb that meets a full disk names the file and the cure, and goes on to the right bytes once there is room."""

from __future__ import annotations

import random
import re
import shutil
from functools import partial

from tests.storm.forked import Ended
from tests.storm.small_disk import can_mount, limit_files, make_room, small_file_system, used
from tests.storm.small_run import ORDER, SmallRun
from tests.storm.trials import Damage, Kind, refuse_crash, refuse_unless

ROOM = 2**30                # bytes of a file system that is large enough
SPACE = re.compile(r"room|space", re.IGNORECASE)


def meet_full_disk(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """Let the disk be full somewhere between the first and the last byte of a verb, then make room. Raises Damage."""
    if can_mount() and numbers.random() < 0.75:
        free = fill_file_system(run, verb, numbers)
        told = f"with {free} bytes free"
    else:
        told = f"with files of at most {limit_all_files(run, verb, numbers)} bytes"
    if differences := run.differences(run.after(verb)):
        raise Damage(f"{told}: {differences}")
    if run.place.is_mount():
        raise Damage("the small file system is still there")
    return 1


def fill_file_system(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """A file system that fills up; returns the bytes that were free on it."""
    before, after = (used(run.folder / "before" / state) for state in (verb, run.after(verb)))
    free = numbers.randint(0, max(after - before, 4096) + 2**20)
    shutil.rmtree(run.place, ignore_errors=True)
    run.place.mkdir()
    with small_file_system(run.place, before + free):
        shutil.copytree(run.folder / "before" / verb, run.place, symlinks=True, dirs_exist_ok=True)
        refuse_unnamed(run, verb, run.run(verb), f"with {free} bytes free")
        make_room(run.place, ROOM)
        ended = run.run(verb)
        kept = run.folder / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(run.place, kept, symlinks=True)
    run.place.rmdir()
    kept.rename(run.place)
    refuse_crash(run, verb, ended)
    refuse_unless(ended.code == 0, f"with {free} bytes free, then with room", ended)
    return free


def limit_all_files(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """A limit for every file that the verb writes; returns it."""
    run.bring(verb)
    size = int(2 ** numbers.uniform(8, 23))
    refuse_unnamed(run, verb, run.run(verb, before=partial(limit_files, size)), f"with files of at most {size} bytes")
    ended = run.run(verb)
    refuse_crash(run, verb, ended)
    refuse_unless(ended.code == 0, f"with files of at most {size} bytes, then with room", ended)
    return size


def refuse_unnamed(run: SmallRun, verb: str, ended: Ended, when: str) -> None:
    """Raise Damage unless a verb has ended, or has named the file that it could not write and the cure."""
    refuse_crash(run, verb, ended)
    if ended.code == 0:         # there was room enough, or only the tracker lacked it
        return
    refuse_unless("error: " in ended.said and str(run.place) in ended.said, f"{when}: no file is named", ended)
    refuse_unless(SPACE.search(ended.said) is not None, f"{when}: no cure is named", ended)


FULL_DISK = Kind(name="full-disk", verbs=ORDER, meet=meet_full_disk)
