"""Who keeps identities in which world: every way to associate the same clips of one segmenter, side by side.

    python -m benchmarks.identity --recipe synthetic_mixed                # models in runs/synthetic_mixed
    python -m benchmarks.identity --recipe synthetic_hard --presets hard cross --videos 24

The models of a run are scored on held-out videos of each preset (`pipeline/datasets/synthetic_identity.py`), which are
those of no split. VPQ at window 1 shows masks and classes; what is lost towards window 12, and AQ, IDF1 and switches,
show identities. The oracle uses the labels: what it loses is lost by the segmenter.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Results
from benchmarks.rows import machine
from jobs.config import override
from jobs.evaluate import scored_part
from jobs.models import open_system, save_model, segmenter_card, untrained_segmenter
from jobs.recipes import find_recipe
from jobs.recipes.schema import Mode, Recipe
from jobs.verb import resolved
from model.contracts import VideoResults
from pipeline.clips import StoredVideoSource
from pipeline.datasets import open_dataset
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.datasets.synthetic_identity import FEWEST_FRAMES
from pipeline.metrics.scorecard import Scorecard, headline
from pipeline.metrics.vpq import WINDOWS
from pipeline.shards import ShardSet, make_shards
from pipeline.system import System
from pipeline.true_tubes import true_tubes

PRESETS = ("easy", "hard", "reappear", "cross", "crowd", "camera", "long", "many")
FRAMES = {"long": 48}       # of a video; 12 in the other presets
COLUMNS = {"panoptic": ("vpq", *(f"k={k}" for k in WINDOWS), "aq", "idf1", "switches"),
           "tracks": ("ap", "ap50", "ap75", "track_idf1", "track_switches")}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to associate clips. changes: of the recipe, as in `--set`."""

    name: str
    mode: Mode = "near_online"
    changes: tuple[str, ...] = ()


ROWS = (
    Row(name="near-online"),
    Row(name="cross-clip head", mode="offline"),
    Row(name="memory buffer", changes=("inference.association.kind=memory_buffer",)),
    Row(name="links", changes=("inference.association.kind=links",)),
    Row(name="links, streaming", changes=("inference.association.kind=links", "inference.association.streaming=true")),
    Row(name="links, then the head", mode="offline", changes=("inference.association.kind=links",)),
    Row(name="oracle (uses the labels)", changes=("evaluation.association=oracle",)),
)


MEASURES = ("model/association/clip_wise.py", "model/association/memory_buffer.py", "model/association/linker.py",
            *(f"model/association/links/{name}.py" for name in ("clustering", "order")))


@dataclass(frozen=True, kw_only=True)
class Size:
    """Presets of the world, and the held-out videos of each."""

    presets: tuple[str, ...]
    videos: int


SIZES = {"toy": Size(presets=("cross",), videos=1)}     # what it measures needs trained models: see `main`


def main() -> None:
    """Print and store the scores of every row in every preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="synthetic_mixed")
    parser.add_argument("--folder", default="", help="folder of the run; the recipe's own by default")
    parser.add_argument("--presets", nargs="+", default=PRESETS, choices=PRESETS)
    parser.add_argument("--videos", type=int, default=40, help="held-out videos of each preset")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = resolved(replace(find_recipe(arguments.recipe), folder=arguments.folder))
    score_all(recipe, arguments.presets, arguments.videos, Results("identity", measures=MEASURES))


def run(size: Size, results: Results) -> None:
    """The scores of an untrained segmenter."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = resolved(replace(find_recipe("tiny"), folder=folder))
        with held_out(recipe, replace(recipe.world, videos_train=0, videos_val=1)) as shards:
            card = segmenter_card(recipe, shards.classes, shards.fingerprint)
        save_model(recipe.segmenter_folder, untrained_segmenter(recipe).state_dict(), card)
        score_all(recipe, size.presets, size.videos, results)


def score_all(recipe: Recipe, presets: Sequence[str], videos: int, results: Results) -> None:
    """Print the table of every row in every preset, and keep the first column of the rows that have a score."""
    names = COLUMNS[recipe.inference.results[0]]
    print(f"{recipe.name}, {videos} videos of each preset, {machine()}")
    print(f"{'world':<10}{'association':<26}" + "".join(f"{name.removeprefix('track_'):>9}" for name in names))
    for scores in compared(recipe, presets, videos=videos):
        print(line(scores, names), flush=True)
        if scores.get(names[0]) is not None:
            results.add(f"{recipe.name}, {scores['world']}, {scores['association']}", scores[names[0]],
                        names[0].upper(), videos=videos, scores=scores)


def line(scores: dict[str, Any], names: Sequence[str]) -> str:
    """A row of the table; a dash where there was nothing to score."""
    if "missing" in scores:
        return f"{scores['world']:<10}{scores['association']:<26}{scores['missing']}"
    cells = ("-" if scores[name] is None else f"{scores[name]:.{int('switches' not in name)}f}" for name in names)
    return f"{scores['world']:<10}{scores['association']:<26}" + "".join(f"{cell:>9}" for cell in cells)


def compared(recipe: Recipe, presets: Sequence[str], *, videos: int) -> Iterator[dict[str, Any]]:
    """The scores of every row in every preset; where a model is missing, "missing" says so instead."""
    for preset in presets:
        frames = FRAMES.get(preset, max(12, FEWEST_FRAMES.get(preset, 1)))
        with held_out(recipe, replace(recipe.world, preset=preset, frames=frames, videos_train=0, videos_val=videos,
                                      seed=recipe.world.seed + 1)) as shards:
            for row in ROWS:
                yield {"name": "identity", "world": preset, "association": row.name, **scores_of(row, recipe, shards)}


def scores_of(row: Row, recipe: Recipe, shards: ShardSet) -> dict[str, Any]:
    """Scores of a row, or why it has none."""
    try:
        recipe = override(recipe, row.changes)
        system = open_system(recipe, row.mode, shards.classes)
    except FileNotFoundError:
        return {"missing": "not trained"}
    except ValueError as error:
        return {"missing": f"does not fit: {error}"}
    return score(system, recipe, shards)


@contextmanager
def held_out(recipe: Recipe, world: SyntheticConfig) -> Iterator[ShardSet]:
    """The shards of a new world, for as long as they are needed."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_world(str(Path(folder) / "world"), world)
        split = recipe.evaluation.split
        make_shards(open_dataset(replace(recipe.dataset, root=str(root), split=split)), Path(folder) / "shards",
                    recipe.shards, split=split)
        yield ShardSet(Path(folder) / "shards")


def score(system: System, recipe: Recipe, shards: ShardSet) -> dict[str, float | None]:
    """Scores of a system: column -> number."""
    result = recipe.inference.results[0]
    card = Scorecard(shards.classes, (result,), windows=WINDOWS)
    for video in shards.videos:
        truth_of = partial(true_tubes, video=video, classes=shards.classes) if recipe.evaluation.association else None
        predicted = system.predict(StoredVideoSource(shards, video), truth_of=truth_of)
        truth = VideoResults(panoptic=shards.truth(video)) if result == "panoptic" else VideoResults(
            tracks=shards.truth_tracks(video))
        card.update(scored_part(predicted, video), truth)
    scores = headline(card.scores())
    windows = {f"k={window}": value for window, value in scores.get("vpq_by_window", {}).items()}
    return {name: value for name, value in {**scores, **windows}.items() if name in COLUMNS[result]}


if __name__ == "__main__":
    main()
