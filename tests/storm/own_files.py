"""Own files that are damaged are never taken for whole: each is made again, or named with a cure that works."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.storm.small_run import FINISHED, VERIFY, SmallRun
from tests.storm.trials import Damage, Kind, refuse_crash, refuse_unless

MOST_FILES = 3              # that are damaged at once
OTHER_SEED = 1              # of the run whose files take the place of this one's
UNREAD = (".mp4", "progress.jsonl")     # files that no verb reads
CURES = re.compile(r"again|run jobs\.|delete|remove|choose another|give another|free space|make room", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The files of a verb, as starts of their names in the folder of a run."""

    reads: tuple[str, ...]      # made by verbs before it
    makes: tuple[str, ...]
    finished: tuple[str, ...]   # those of `makes` that tell it, once they are there, that nothing is left to do
    mark: str                   # pattern of the files without which it is not finished


FILES = {
    "make_shards": Files(reads=("world/world.json",), makes=("shards/",), finished=("shards/",),
                         mark="shards/*/manifest.json"),
    "train_stage_one": Files(reads=("shards/train/",), makes=("stage_one/",), finished=("stage_one/model/",),
                             mark="stage_one/model/model.json"),
    "cache_queries": Files(reads=("shards/train/", "stage_one/model/"), makes=("cache/",), finished=("cache/",),
                           mark="cache/*/manifest.json"),
    "train_links": Files(reads=("cache/", "stage_one/model/"), makes=("stage_two/links/",),
                         finished=("stage_two/links/model/",), mark="stage_two/links/model/model.json"),
    "train_stage_two": Files(reads=("cache/", "stage_one/model/"),
                             makes=("stage_two/model/", "stage_two/checkpoints/", "stage_two/identity.json"),
                             finished=("stage_two/model/",), mark="stage_two/model/model.json"),
    "sweep": Files(reads=("cache/", "stage_one/model/", "shards/val/"), makes=("sweeps/",), finished=("sweeps/",),
                   mark="sweeps/*/trials/*.json"),
    "evaluate": Files(reads=("shards/val/", "stage_one/model/", "stage_two/model/"), makes=("scores/",),
                      finished=("scores/",), mark="scores/*/predictions/*/predictions.json"),
    "predict": Files(reads=("stage_one/model/", "stage_two/model/"), makes=("predictions/",),
                     finished=("predictions/",), mark="predictions/predictions.json"),
}


def emptied(path: Path, numbers: random.Random) -> None:
    path.write_bytes(b"")


def cut(path: Path, numbers: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:numbers.randrange(len(content))])


def zeros(path: Path, numbers: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def zeros_at_the_end(path: Path, numbers: random.Random) -> None:
    content = path.read_bytes()
    kept = numbers.randrange(len(content))
    path.write_bytes(content[:kept].ljust(len(content), b"\0"))


def flipped_bit(path: Path, numbers: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[numbers.randrange(len(content))] ^= 1 << numbers.randrange(8)
    path.write_bytes(content)


def noise(path: Path, numbers: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = numbers.randrange(len(content))
    content[start:start + 64] = numbers.randbytes(len(content[start:start + 64]))
    path.write_bytes(content)


def folder_in_its_place(path: Path, numbers: random.Random) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").write_text("x")


def gone(path: Path, numbers: random.Random) -> None:
    path.unlink()


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    emptied, cut, zeros, zeros_at_the_end, flipped_bit, flipped_bit, noise, folder_in_its_place, gone)


def meet_damaged_files(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """Damage some files that a verb reads or has made, and follow its messages until it ends; returns their count."""
    situation = numbers.choice(["before", "after", "unfinished"])
    files = FILES[verb]
    starts = {"before": (*files.reads, "tracking.json"), "after": files.finished, "unfinished": files.makes}[situation]
    run.bring(verb if situation == "before" else run.after(verb))
    if situation == "unfinished":
        for mark in list((run.place / "run").glob(files.mark)):
            mark.unlink()
    hurt = damaged(run, starts, numbers)
    told = f"{situation} {verb}, {', '.join(f'{name}: {damage}' for name, damage in hurt.items())}"
    try:
        said = until_it_ends(run, verb, [run.place / "run" / name for name in hurt])
        refuse_wrong_bytes(run, verb, set(hurt), said)
    except Damage as error:
        raise Damage(f"{told}: {error}") from None
    return len(hurt)


def damaged(run: SmallRun, starts: tuple[str, ...], numbers: random.Random, *, ending: str = "") -> dict[str, str]:
    """Damage files whose names have one of these starts, and this end; name -> damage."""
    root = run.place / "run"
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.stat().st_size)
    names = [name for name in names if name.startswith(starts) and name.endswith(ending)
             and not name.endswith(UNREAD)]
    hurt = {}
    for name in numbers.sample(names, min(len(names), numbers.randint(1, MOST_FILES))):
        other = other_file(run, name)
        if other is not None and numbers.random() < 0.25:
            shutil.copyfile(other, root / name)
            hurt[name] = "that of another run"
            continue
        damage = numbers.choice(DAMAGES)
        damage(root / name, numbers)
        hurt[name] = damage.__name__
    return hurt


@cache
def other_run(folder: Path) -> Path:
    """The folder of a finished run of other videos and another seed, which is made beside `folder`."""
    run = SmallRun(folder.with_name("other"), seed=OTHER_SEED)
    run.make()
    return run.folder / "before" / FINISHED / "run"


def other_file(run: SmallRun, name: str) -> Path | None:
    """The file of another run with this name; digests in the names of folders stand for any. None: there is none."""
    pattern = re.sub(r"/[0-9a-f]{16}/", "/*/", name)
    return next((path for path in other_run(run.folder).glob(pattern) if path.is_file()), None)


def until_it_ends(run: SmallRun, verb: str, hurt: list[Path]) -> str:
    """Run a verb, and again after each of its messages was followed; returns everything it printed. Raises Damage."""
    said = ""
    for _ in range(len(hurt) + 2):
        ended = run.run(verb)
        said += ended.said
        refuse_crash(run, verb, ended)
        if ended.code == 0:
            return said
        error = ended.said[ended.said.rindex("error: "):] if "error: " in ended.said else ""
        named = [path for path in hurt if str(path) in ended.said]
        refuse_unless(bool(named), "none of the damaged files is named", ended)
        refuse_unless(CURES.search(error) is not None, "no cure is named", ended)
        for path in named:
            follow_cure(run, verb, path, hurt)
    raise Damage(f"following its messages does not help: {said[-1500:]}")


def follow_cure(run: SmallRun, verb: str, path: Path, hurt: list[Path]) -> None:
    """Delete a file, or the checkpoint that it belongs to, and run the verb that makes it, where that is another.

    That verb may meet other damaged files first, whose cures are then followed too.
    """
    for damaged_path in [path, *(folder for folder in path.parents if folder.name.startswith("step-"))]:
        if damaged_path.is_dir():
            shutil.rmtree(damaged_path)
        else:
            damaged_path.unlink(missing_ok=True)
    name = str(path.relative_to(run.place / "run"))
    if name == "world/world.json":
        shutil.rmtree(path.parent)
    maker = next((maker for maker in FILES if name.startswith(FILES[maker].makes)), verb)
    if maker != verb:
        try:
            until_it_ends(run, maker, hurt)
        except Damage as error:
            raise Damage(f"{maker} does not make {name} again: {error}") from None


def refuse_wrong_bytes(run: SmallRun, verb: str, hurt: set[str], said: str) -> None:
    """Raise Damage where files are wrong that the verb made, unless it named a damaged file and left out its part."""
    wrong = run.differences(run.after(verb))
    named = {name for name in hurt if str(run.place / "run" / name) in said}
    own = {name: how for name, how in wrong.items() if name.startswith(FILES[verb].makes)
           and not (name in hurt and "/checkpoints/" in name)}     # one that is not the newest is never read
    if own and not named:
        raise Damage(f"taken for whole: {own}, printed: {said[-800:]}")
    elsewhere = {name: how for name, how in wrong.items()
                 if name not in own and hurt.isdisjoint((name, *map(str, Path(name).parents)))}
    if elsewhere:
        raise Damage(f"files of other verbs are changed: {elsewhere}")


def meet_damaged_shards(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """Damage files of shards; every one of them is named. Raises Damage."""
    run.bring(FINISHED)
    hurt = damaged(run, tuple(f"shards/{split}/{split}-" for split in ("train", "val")), numbers, ending=".tar")
    ended = run.run(verb)
    refuse_crash(run, verb, ended)
    told = ", ".join(f"{name}: {damage}" for name, damage in hurt.items())
    refuse_unless(ended.code == 3, f"{told}: taken for whole", ended)
    for name in hurt:
        refuse_unless(str(run.place / "run" / name) in ended.said, f"{told}: {name} is not named", ended)
    return len(hurt)


DAMAGED_SHARDS = Kind(name="damaged-shards", verbs=(VERIFY,), meet=meet_damaged_shards)
OWN_FILES = Kind(name="own-files", verbs=tuple(FILES), meet=meet_damaged_files)
