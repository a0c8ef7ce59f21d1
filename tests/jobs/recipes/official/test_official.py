"""Every published recipe is the official run, or says where and why it is not."""

from __future__ import annotations

import pytest

from jobs.config import override
from jobs.recipes import find_recipe
from tests.jobs.recipes.official import compare
from tests.jobs.recipes.official.compare import comparisons, facts_of, published
from tests.jobs.recipes.official.coverage import uncovered
from tests.jobs.recipes.official.decisions import DECISIONS
from tests.jobs.recipes.official.deviations import DEVIATIONS
from tests.jobs.recipes.official.facts import Fact, matches
from tests.jobs.recipes.official.families import OURS_ALONE, TABLES, VARIANTS, WITHOUT_A_FILE
from tests.jobs.recipes.official.page import PAGE, page, show

OFFICIAL = [name for name in published() if not any(matches(name, patterns.split()) for patterns in OURS_ALONE)]


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_recipe_is_the_official_run_but_for_stated_differences(name):
    unstated = [f"{c.field}: ours {show(c.ours)}, official {show(c.official)} ({c.source})"
                for c in comparisons(name) if not c.equal and not c.stated]
    assert not unstated, "\n".join([f"{name} differs; mend the recipe, or state why in deviations.py:", *unstated])


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_setting_of_a_recipe_is_compared_or_needs_no_official_value(name):
    missing = uncovered(name)
    assert not missing, f"{name}: {missing} stand in no table; add the official value, or a reason in coverage.py"


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_field_has_one_official_value(name):
    fields = [fact.field for fact in facts_of(name)]
    assert len(fields) > 50
    assert sorted(fields) == sorted(set(fields))


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda deviation: f"{deviation.recipes[0]}:{deviation.fields[0]}")
def test_a_stated_difference_is_there_as_stated(deviation):
    stated = [c for name in OFFICIAL for c in comparisons(name) if deviation.covers(name, c.field)]
    assert stated, "it is about no field of any recipe"
    mended = [f"{c.recipe} {c.field}" for c in stated if c.equal]
    assert not mended, f"these are as official now; take them out of the deviation: {mended}"
    assert {show(c.ours) for c in stated} == {show(deviation.ours)}
    assert all(c.stated == [deviation] for c in stated), "two deviations speak about one field"


def test_every_decision_is_held_by_a_fact():
    decided = {c.decision for name in OFFICIAL for c in comparisons(name)} - {""}
    assert decided == DECISIONS.keys()
    assert {deviation.decision for deviation in DEVIATIONS} <= decided | {""}


def test_tables_variants_and_exceptions_are_about_recipes_that_exist():
    assert [table.recipes for table in TABLES if not any(map(table.covers, published()))] == []
    groups = [group.split() for group in (*WITHOUT_A_FILE, *OURS_ALONE)]
    assert [group for group in groups if not any(matches(name, group) for name in published())] == []
    assert VARIANTS.keys() | {variant.base for variant in VARIANTS.values()} <= set(OFFICIAL)


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "write it anew: python -m tests.jobs.recipes.official"


@pytest.mark.parametrize("source", ["", "kmax_r50.yaml:60", "KD", "KD kmax_r50.yaml:3; train_net.py:7"])
def test_an_official_value_without_a_source_is_refused(source):
    with pytest.raises(ValueError, match="name file and line"):
        Fact(field="stage_one.fit.steps", value=1, source=source)


@pytest.mark.parametrize(("change", "field"), [
    ("stage_one.fit.steps=39000", "stage_one.fit.steps"),
    ("stage_one.optimizer.warmup_steps=1000", "stage_one.rates"),
    ("stage_one.optimizer.multipliers=[[\"backbone.\",0.2]]", "stage_one.parameters: backbone: weights"),
    ("stage_one.optimizer.weight_decay=0.01", "stage_one.parameters: everything else: weights"),
    ("stage_one.input.augment.scale=[0.2,1.7]", "stage_one.input.augment.scale"),
    ("stage_one.input.copy_paste=null", "stage_one.input.copy_paste.scale"),
    ("stage_two.input.reverse=0.0", "stage_two.input.reverse"),
    ("inference.panoptic.overlap=0.7", "inference.panoptic.overlap"),
    ("stage_one.start_from=runs/coco_kmax_r50/stage_one/model", "start weights")])
def test_a_changed_recipe_is_noticed(change, field):
    """The comparison can fail: one override of a recipe changes the field that it decides."""
    recipe = override(find_recipe("vipseg_video_kmax_r50_near_online"), [change])
    differing = {c.field for c in compare.compare_recipe(recipe) if not c.equal and not c.stated}
    assert field in differing
