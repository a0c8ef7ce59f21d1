"""The report of a run: one file that asks for nothing, shows what the scores say, and can be read anywhere."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from jobs import report
from jobs.reporting.curves import Curve, chart, read_losses, read_scores
from jobs.reporting.evaluations import read_evaluations
from jobs.reporting.page import TIMELINES, gather, rendered
from jobs.reporting.tables import cell
from pipeline.shards import ShardSet
from tests.browser import look_at, needs_chromium
from tests.jobs.reporting.planted import exchanged, scored_with_faults

VOID_ELEMENTS = {"meta", "link", "img", "source", "br", "input"}


class Page(HTMLParser):
    """All elements of a page; raises AssertionError where they are not closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.getpos())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with planted switches, a second evaluation, and losses."""
    recipe = scored_with_faults(tmp_path_factory.mktemp("page") / "run", lambda video: exchanged(video, frame=3))
    shutil.copytree(recipe.scores_root / "predictions", recipe.scores_root / "near_online_links")
    progress = recipe.run_folder / "stage_one" / "progress.jsonl"
    progress.parent.mkdir()
    progress.write_text('{"step": 2, "losses": {"mask": 2.0, "class": 1.0}}\n'
                        '{"step": 4, "losses": {"mask": 1.0, "class": 0.5}}\n{"step": 6, "lo')
    return recipe


@pytest.fixture(scope="module")
def page(run):
    said = report.main(run)
    assert said["report"] == str(run.run_folder / "report.html")
    return run.run_folder / "report.html"


def test_the_file_is_whole_and_asks_for_nothing_outside(page):
    text = page.read_text()
    assert len(text) < 5_000_000
    elements = Page(text).elements
    sources = [attributes.get(name) for tag, attributes in elements for name in ("src", "srcset", "href", "data")
               if attributes.get(name) is not None and tag != "a" and not tag.startswith("use")]
    assert len([source for source in sources if source.startswith("data:image/webp")]) > 4
    assert [source[:40] for source in sources if not source.startswith("data:")] == []
    assert all(attributes["href"].startswith("#") for tag, attributes in elements if tag == "a")
    assert re.findall(r"url\((?!#)[^)]*\)|@import|<script|https?://", text) == []


def test_every_picture_has_words_and_ids_are_unique(page):
    elements = Page(page.read_text()).elements
    assert all(attributes.get("alt") for tag, attributes in elements if tag == "img")
    assert all(attributes.get("aria-label") for _, attributes in elements if attributes.get("role") == "img")
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = {attributes["href"][1:] for tag, attributes in elements if tag == "a"}
    assert targets <= set(ids)


def test_the_switches_of_the_page_are_those_that_the_metric_counts(run, page):
    text = page.read_text()
    (first, _) = read_evaluations(run.scores_root)
    shown = [(int(drawn), int(counted)) for drawn, counted in
             re.findall(r": (\d+) switch(?:es)? \(the metric counts (\d+)\)", text)]
    assert shown
    assert all(drawn == counted for drawn, counted in shown)
    assert sum(map(int, re.findall(r'data-switches="(\d+)"', text))) == sum(drawn for drawn, _ in shown)
    assert text.count('class="switch"') == sum(drawn for drawn, _ in shown) > 0
    counted = sorted(numbers["switches"] for numbers in first.per_video.values())
    assert sum(drawn for drawn, _ in shown) == 2 * sum(counted[-TIMELINES:])        # both evaluations are the same


def test_scores_losses_classes_and_commands_stand_on_the_page(run, page):
    text = page.read_text()
    (first, _) = read_evaluations(run.scores_root)
    assert f"{first.summary['vpq']:.1f}" in text
    assert "near-online, links" in text
    assert "sum: 3 at 2, 1.5 at 4" in text
    assert "triangle" in text
    assert "python -m jobs.make_shards --recipe tiny" in text
    assert "python -m jobs.evaluate --recipe tiny" in text
    assert ShardSet(run.shards_of("val")).fingerprint in text


def test_what_comes_from_data_is_escaped(run):
    shards = ShardSet(run.shards_of("val"))
    evil = "<script>alert(1)</script>"
    evaluations = read_evaluations(run.scores_root)
    info = replace(shards.classes.classes[-1], name=evil)
    shards.classes = replace(shards.classes, classes=(*shards.classes.classes[:-1], info))
    text = rendered(replace(gather(run, shards, evaluations), title=evil, facts=[(evil, evil)], commands=[evil]))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    Page(text)
    assert evil not in chart(evil, [Curve(title=evil, points=((1, 2), (2, 3)))], x=evil, y="loss").svg


def test_a_run_that_has_only_shards_has_a_page(run, tmp_path):
    recipe = replace(run, folder=str(tmp_path / "run"), stage_one_from=str(run.run_folder))
    text = rendered(gather(recipe, ShardSet(recipe.shards_of("val")), read_evaluations(recipe.scores_root)))
    Page(text)
    assert "Nothing is scored yet" in text


def test_without_shards_the_verb_that_makes_them_is_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="make_shards"):
        report.main(replace(run, folder=str(tmp_path)))


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1400, False)])
def test_a_browser_opens_it_without_a_complaint(page, width, dark):
    seen = look_at(page.as_uri(), width=width, dark=dark)
    assert seen["problems"] == []
    assert seen["requests"] == []
    assert seen["undrawn"] == seen["without_words"] == 0
    assert seen["images"] > 4
    assert seen["width"] <= width           # nothing is cut off at the side
    red, *_ = map(int, re.findall(r"\d+", seen["background"]))
    assert (red < 100) == dark


def test_losses_skip_a_line_that_was_cut_off_and_take_the_last_of_a_repeated_step(tmp_path):
    path = tmp_path / "progress.jsonl"
    path.write_text('{"step": 1, "losses": {"a": 3}}\n{"step": 2, "losses": {"a": 9}}\n'
                    '{"step": 2, "losses": {"a": 2}}\n{"step": 3')
    assert read_losses(path) == [Curve(title="sum", points=((1, 3.0), (2, 2.0)))]
    assert read_losses(tmp_path / "absent") == []


def test_scores_are_those_of_the_newest_checkpoint_that_has_any(tmp_path):
    for step, content in ((10, '{"validation": [[5, 1.0], [10, 2.5]]}'), (20, '{"valid')):
        folder = tmp_path / "checkpoints" / f"step-{step:07d}"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(content)
    assert read_scores(tmp_path) == Curve(title="score", points=((5, 1.0), (10, 2.5)))
    assert read_scores(tmp_path / "absent") is None


@pytest.mark.parametrize(("number", "value", "against", "expected"), [
    ("vpq", 50.0, 48.0, ("50.0", "+2.0", "better")), ("vpq", 48.0, 50.0, ("48.0", "-2.0", "worse")),
    ("vpq", None, 3.0, ("-", "", "")), ("switches", 3, 5, ("3", "-2", "better")),
    ("vpq", 50.0, 50.01, ("50.0", "", ""))])
def test_a_difference_says_whether_it_is_better(number, value, against, expected):
    result = cell(value, number=number, against=against)
    assert (result.text, result.difference, result.verdict) == expected
