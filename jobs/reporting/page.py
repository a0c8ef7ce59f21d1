"""The report as one HTML file, which asks for nothing outside itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.recipes.schema import Recipe
from jobs.reporting.curves import Chart, stage_charts, window_chart
from jobs.reporting.evaluations import Evaluation, best_of
from jobs.reporting.facts import commands, facts
from jobs.reporting.gallery import SwitchPictures, gallery
from jobs.reporting.pictures import Loop, loop_of
from jobs.reporting.scenes import Scene, open_scene, ranked_videos, switching_videos
from jobs.reporting.tables import Table, class_table, data_tables, headline_table, name_of_number, video_table
from jobs.reporting.timelines import TimelinePicture, timeline_picture
from pipeline.metrics.scorecard import FIRST_NUMBER
from pipeline.shards import ShardSet, VideosByName

TEMPLATE = Path(__file__).with_name("page.html")
EXTREMES = 2            # worst and best videos that are drawn
TIMELINES = 2           # videos whose identities are shown


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything on the page."""

    title: str
    facts: list[tuple[str, str]]
    commands: list[str]
    scores: Table
    windows: Chart | None
    curves: list[Chart]
    classes: Table
    videos: Table
    best: str               # the way whose videos are drawn
    loops: list[Loop]
    timelines: list[TimelinePicture]
    switches: list[SwitchPictures]
    data: list[tuple[str, Table]]


def gather(recipe: Recipe, shards: ShardSet, evaluations: Sequence[Evaluation]) -> Report:
    """Read a run for its report. Cost: tables and curves, and pictures of a few videos, however many there are."""
    number = FIRST_NUMBER[recipe.inference.results[0]]
    videos = VideosByName(shards.videos)
    scenes = [scene for name in shown_switching(evaluations, number)
              for evaluation in evaluations if evaluation.is_result and name in evaluation.cards and name in videos
              if (scene := open_scene(evaluation, videos[name], shards, recipe)) and scene.timeline is not None]
    best = best_of(evaluations, number)
    return Report(
        title=recipe.name, facts=facts(recipe, shards), commands=commands(recipe, evaluations),
        scores=headline_table(evaluations), windows=window_chart(evaluations),
        curves=stage_charts(recipe.run_folder, recipe.stage_one_run), classes=class_table(evaluations, number),
        videos=video_table(evaluations, number), best="" if best is None else best.title,
        loops=[] if best is None else loops(recipe, shards, best, number),
        timelines=[timeline_picture(scene, shards.classes) for scene in scenes], switches=gallery(scenes, shards),
        data=data_tables(recipe))


def shown_switching(evaluations: Sequence[Evaluation], number: str) -> list[str]:
    """The videos whose identities are shown: those with the most switches, and without any the worst video."""
    best = best_of(evaluations, number)
    return switching_videos(evaluations, TIMELINES) or ([] if best is None else ranked_videos(best, number)[:1])


def loops(recipe: Recipe, shards: ShardSet, best: Evaluation, number: str) -> list[Loop]:
    """The worst and the best videos of the best result."""
    ranked = ranked_videos(best, number)
    count = min(EXTREMES, len(ranked) // 2) or len(ranked[:1])
    chosen = [*((name, "worst") for name in ranked[:count]), *((name, "best") for name in ranked[count:][-count:])]
    videos = VideosByName(shards.videos)
    pictures = []
    for name, word in chosen:
        scene: Scene | None = open_scene(best, videos[name], shards, recipe) if name in videos else None
        if scene is not None:
            score = best.per_video[name][number]
            pictures.append(loop_of(scene, shards, title=f"Among the {word}: video {name}, {score:.1f} "
                                                         f"{name_of_number(number)}"))
    return pictures


def rendered(report: Report) -> str:
    """The page. Everything that comes from data is escaped, but the drawn curves."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["drawn"] = Markup       # SVG by Matplotlib, which escapes its texts
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(report=report)
