"""The curves of a run: losses and scores over the steps of each stage, and VPQ over its windows."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.reporting.evaluations import Evaluation
from jobs.training.checkpoint_folders import checkpoints
from pipeline.foreign_files import LARGEST_JSON, read_file, whole_json

MOST_POINTS = 400           # of a curve
INK = "#123456"             # which the page replaces by the colour of its text
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")     # told apart by colour-blind readers
MARKERS = "os^Dv*"          # so that curves differ on paper too
# Of Matplotlib's SVG: header, metadata, global style, fixed size, and ids that several pictures of a page would share.
_SURPLUS = re.compile(r'^.*?(?=<svg)|<metadata>.*?</metadata>|<style.*?</style>| xmlns(:\w+)?="[^"]*"'
                      r'| (width|height)="[\d.]+pt"|(?<=<g) id="[^"]*"', re.S)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a picture."""

    title: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A picture of curves, and its content in words."""

    title: str
    svg: str            # inline, in the colours of the page
    words: str


def stage_charts(run: Path, stage_one_run: Path) -> list[Chart]:
    """Loss, and score where the stage was scored while it trained, of every stage that has trained."""
    stages = {"stage one": stage_one_run / "stage_one", "stage two, cross-clip head": run / "stage_two",
              "stage two, learned links": run / "stage_two" / "links"}
    charts = []
    for title, folder in stages.items():
        losses = read_losses(folder / "progress.jsonl")
        if losses:
            charts.append(chart(f"Loss of {title}", losses, x="step", y="loss", logarithmic=True))
        if scores := read_scores(folder):
            charts.append(chart(f"Score of {title} while it trained", [scores], x="step", y="score"))
    return charts


def read_losses(path: Path) -> list[Curve]:
    """The sum of the losses and the largest of its terms, from `progress.jsonl`; of repeated steps the last counts."""
    reports: dict[int, Mapping[str, float]] = {}
    for line in read_file(path, largest=LARGEST_JSON).splitlines() if path.is_file() else ():
        with suppress(ValueError, KeyError, TypeError):         # a line that a kill has cut off
            report = json.loads(line)
            reports[int(report["step"])] = {name: float(value) for name, value in report["losses"].items()}
    if not reports:
        return []
    steps = sorted(reports)
    sums = Curve(title="sum", points=_thinned([(step, sum(reports[step].values())) for step in steps]))
    last = reports[steps[-1]]
    terms = sorted(last, key=lambda name: -last[name])[:len(COLORS) - 1] if len(last) > 1 else []
    return [sums, *(Curve(title=name, points=_thinned([(step, reports[step][name]) for step in steps
                                                       if name in reports[step]])) for name in terms)]


def read_scores(stage: Path) -> Curve | None:
    """The scores that a stage's newest checkpoint remembers; None where it was not scored while it trained."""
    states = [whole_json(folder / "state.json") for folder in checkpoints(stage)]
    history = next((state["validation"] for state in reversed(states) if state and state.get("validation")), [])
    return Curve(title="score", points=_thinned([(step, value) for step, value in history])) if history else None


def window_chart(evaluations: Sequence[Evaluation]) -> Chart | None:
    """VPQ over the length of the window, a curve for each way; None where no VPQ was scored."""
    curves = []
    for evaluation in evaluations:
        by_window = evaluation.summary.get("vpq_by_window") or {}
        points = tuple((int(window), value) for window, value in by_window.items() if value is not None)
        if points and evaluation.is_result:
            curves.append(Curve(title=evaluation.title, points=points))
    return chart("VPQ by window", curves, x="window (frames)", y="VPQ (%)") if curves else None


def chart(title: str, curves: Sequence[Curve], *, x: str, y: str, logarithmic: bool = False) -> Chart:
    """Draw curves; the words give the first and the last value of each."""
    def draw(axes: Any) -> None:
        for place, curve in enumerate(curves):
            steps, values = zip(*curve.points)
            axes.plot(steps, values, color=COLORS[place % len(COLORS)], marker=MARKERS[place % len(MARKERS)],
                      markersize=3.5, markevery=max(1, len(steps) // 8), linewidth=1.4, label=curve.title)
        if logarithmic:
            _scale_by_powers(axes, [value for curve in curves for _, value in curve.points])
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False, labelcolor=INK)

    words = "; ".join(f"{curve.title}: {curve.points[0][1]:.4g} at {curve.points[0][0]:g}, {curve.points[-1][1]:.4g} "
                      f"at {curve.points[-1][0]:g}" for curve in curves)
    return Chart(title=title, svg=drawn(draw, name=title), words=f"{title} over {x}. {words}.")


def _scale_by_powers(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic scale with plain numbers, where all values are above 0."""
    if min(values) <= 0:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}" if max(values) < 10 * min(values) else "")


def drawn(draw: Callable[[Any], None], *, name: str) -> str:
    """A picture as SVG to stand inside a page, with its text as text. name: makes its ids different from others'."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    import matplotlib as mpl
    from matplotlib.figure import Figure  # seconds to import, and needed once

    style = {"svg.fonttype": "none", "svg.hashsalt": name, "svg.id": None, "text.parse_math": False, "font.size": 9,
             "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
             "axes.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(4.8, 2.9), layout="constrained")
        figure.patch.set_alpha(0)
        draw(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _SURPLUS.sub("", file.getvalue()).replace(INK, "currentColor")


def _thinned(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Evenly chosen points, with the first and the last one."""
    if len(points) <= MOST_POINTS:
        return tuple(points)
    return tuple(points[round(place * (len(points) - 1) / (MOST_POINTS - 1))] for place in range(MOST_POINTS))
