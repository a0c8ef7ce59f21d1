"""Hostile files in a data set, among videos to predict or in predictions to score: only what was hit is lost."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jobs.recipes.schema import Recipe
from pipeline.shards import ShardSet
from tests.storm.forked import Ended
from tests.storm.hostile_files import BOMBS, endless, fifo, listening, sparse, zeros
from tests.storm.small_run import FINISHED, SmallRun
from tests.storm.trials import Damage, Kind, refuse_crash, refuse_unless

MOST_FILES = 2              # that are hit at once
PLACES = (fifo, listening, endless, zeros, sparse)
CONTENTS = (*BOMBS.values(), b"", bytes(4096), b"<html>404</html>", b"[" * 10**6, b'{"a":' * 10**5, b"{}", b"[]",
            b"null", b'{"videos": [null, 3], "annotations": "x"}', b"#EXTM3U\n/etc/passwd\n", "Ä\n".encode() * 99)
EVERYTHING = "*"            # of the videos, where a file belongs to all of them


def meet_hostile_data(run: SmallRun, numbers: random.Random) -> tuple[Ended, dict[str, str], set[str]]:
    """Make shards of a data set in which files were replaced; the videos whose bytes are not those of before."""
    run.bring("train_stage_one")
    shards = run.place / "run" / "shards"
    shutil.rmtree(shards)
    hit = replaced(run.place / "run" / "world", numbers, spare=("world.json",))
    ended = run.run("make_shards", change=with_bad_videos)
    before = run.folder / "before" / "train_stage_one" / "run" / "shards"
    changed = set()
    for split in ("train", "val") if ended.code == 0 else ():
        ours, theirs = (members(folder / split) for folder in (shards, before))
        changed |= {video for video in theirs if ours.get(video) != theirs[video]}
    return ended, hit, changed


def meet_hostile_videos(run: SmallRun, numbers: random.Random) -> tuple[Ended, dict[str, str], set[str]]:
    """Predict a folder in which files were replaced; the videos whose results are not those of before."""
    run.bring("predict")
    hit = replaced(run.place / "videos", numbers)
    ended = run.run("predict")
    wrong = run.differences(FINISHED)
    wrong = {name for name in wrong if name.startswith(("predictions/pan_pred/", "predictions/videos/"))}
    return ended, hit, {Path(name).parts[2].removesuffix(".json") for name in wrong} if ended.code == 0 else set()


def meet_hostile_predictions(run: SmallRun, numbers: random.Random) -> tuple[Ended, dict[str, str], set[str]]:
    """Score predictions in which files were replaced; the videos that were skipped."""
    run.bring(FINISHED)
    (folder,) = (run.place / "run" / "scores" / "offline" / "predictions").iterdir()
    hit = replaced(folder, numbers, spare=("tracks.json", "pred.json"))
    ended = run.run("evaluate", change=lambda recipe: scoring(recipe, folder))
    skipped = {row["video"] for row in summary(ended).get("skipped", ())} if ended.code == 0 else set()
    return ended, hit, skipped


HOSTILE = {"make_shards": meet_hostile_data, "predict": meet_hostile_videos, "evaluate": meet_hostile_predictions}


def meet_hostile_files(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """Put hostile files in the place of some that a verb reads; returns their count. Raises Damage."""
    ended, hit, lost = HOSTILE[verb](run, numbers)
    told = ", ".join(f"{name}: {hostile}" for name, hostile in hit.items())
    refuse_crash(run, verb, ended)
    videos = {video_of(name) for name in hit}
    if ended.code == 0 and EVERYTHING not in videos and lost - videos:
        raise Damage(f"{told}: also lost {sorted(lost - videos)}: {ended.said[-1500:]}")
    refuse_unless(ended.code in (0, 2, 3, 4), f"{told}: no named end", ended)
    named = any(name in ended.said or video_of(name) in ended.said for name in hit)
    refuse_unless(ended.code == 0 or named, f"{told}: the file is not named", ended)
    refuse_unless(ended.code == 0 or EVERYTHING in videos, f"{told}: all was lost for one video", ended)
    return len(hit)


def replaced(root: Path, numbers: random.Random, *, spare: tuple[str, ...] = ()) -> dict[str, str]:
    """Replace some files below a folder by hostile ones; name -> what took its place."""
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    names = [name for name in names if not name.endswith(spare)] if spare else names
    hit = {}
    for name in numbers.sample(names, numbers.randint(1, MOST_FILES)):
        path = root / name
        content = path.read_bytes()
        way = numbers.choice([in_its_place, other_content, cut])
        path.unlink()
        hit[name] = way(path, content, numbers)
    return hit


def in_its_place(path: Path, content: bytes, numbers: random.Random) -> str:
    place: Callable[[Path], None] = numbers.choice(PLACES)
    place(path)
    return place.__name__


def other_content(path: Path, content: bytes, numbers: random.Random) -> str:
    hostile = numbers.choice(CONTENTS)
    path.write_bytes(hostile)
    return f"{hostile[:24]!r}"


def cut(path: Path, content: bytes, numbers: random.Random) -> str:
    kept = numbers.randrange(len(content))
    path.write_bytes(content[:kept] + numbers.randbytes(numbers.choice([0, len(content) - kept])))
    return f"whole up to byte {kept}"


def video_of(name: str) -> str:
    """The video that a file belongs to, by its path: `images/a/0.jpg`, `videos/a.json`, `a.mp4`, `a/0.jpg`."""
    parts = Path(name).parts
    if parts[0] in ("images", "panomasks", "panomasksRGB", "pan_pred", "videos"):
        return Path(parts[1]).stem
    if name.endswith((".json", ".txt")):
        return EVERYTHING
    return Path(parts[0]).stem


def members(folder: Path) -> dict[str, list]:
    """Video -> names and checksums of its frames and labels in a shard set."""
    return {video.video_id: [(frame.name, frame.crc32) for frame in video.frames] for video in ShardSet(folder).videos}


def with_bad_videos(recipe: Recipe) -> Recipe:
    """The recipe that accepts any share of bad videos."""
    return replace(recipe, shards=replace(recipe.shards, max_bad_fraction=1.0))


def scoring(recipe: Recipe, predictions: Path) -> Recipe:
    """The recipe that scores predictions on disk."""
    return replace(recipe, evaluation=replace(recipe.evaluation, predictions=str(predictions)))


def summary(ended: Ended) -> dict:
    """The last line of a verb."""
    return json.loads(ended.said.strip().splitlines()[-1])


FOREIGN_FILES = Kind(name="foreign-files", verbs=tuple(HOSTILE), meet=meet_hostile_files)
