"""The trials of a sweep: what `--over` means, and that names follow content."""

from __future__ import annotations

import pytest

from jobs.recipes import find_recipe
from jobs.sweep import SweepFlags, planned
from jobs.sweeping.plan import Trial, drawn, grid, read_axis, refuse_unfit

LAYERS = "stage_two.head.layers"
RATE = "stage_two.optimizer.lr"


def test_a_grid_is_every_combination_in_the_order_of_the_flags():
    axes = [read_axis(f"{LAYERS}=1,2"), read_axis(f"{RATE}=1e-3,1e-2")]
    assert grid(axes) == [(f"{LAYERS}={layers}", f"{RATE}={rate}") for layers in (1, 2) for rate in ("1e-3", "1e-2")]


def test_commas_inside_of_brackets_and_quotes_belong_to_a_value():
    axis = read_axis('stage_two.optimizer.multipliers=[["predictor",0.1]],[],[["a,b",2]]')
    assert axis.choices == ('[["predictor",0.1]]', "[]", '[["a,b",2]]')


def test_a_range_is_drawn_evenly_on_a_logarithmic_scale_and_more_trials_begin_with_fewer():
    axis = read_axis(f"{RATE}=1e-4..1e-2")
    many = drawn([axis], 400, seed=0)
    assert drawn([axis], 50, seed=0) == many[:50]
    rates = [float(settings[0].partition("=")[2]) for settings in many]
    assert min(rates) >= 1e-4
    assert max(rates) <= 1e-2
    assert 0.4 < sum(rate < 1e-3 for rate in rates) / len(rates) < 0.6      # half of the decades, not a tenth


def test_a_range_of_whole_numbers_gives_whole_numbers_and_no_more_settings_than_there_are():
    assert sorted(drawn([read_axis(f"{LAYERS}=1..3")], 10, seed=0)) == [(f"{LAYERS}={n}",) for n in (1, 2, 3)]


@pytest.mark.parametrize(("flags", "message"), [
    ({}, "at least one --over"),
    ({"over": ("stage_two.head.layers",)}, "give setting=value,value"),
    ({"over": ("stage_one.fit.steps=1,2",)}, "changes settings that begin with stage_two."),
    ({"over": (f"{RATE}=1e-2..1e-3",)}, "ends below its start"),
    ({"over": (f"{RATE}=1e-3..1e-2",)}, "say how many with --trials"),
    ({"over": (f"{RATE}=1e-3..1e-2",), "scheduler": "grid"}, "no list of values"),
    ({"over": (f"{LAYERS}=1,2",), "seeds": 3, "trials": 2}, "below --seeds"),
    ({"over": (f"{LAYERS}=1,2",), "seeds": 0}, "at least 1"),
    ({"over": (f"{LAYERS}=1,2",), "scheduler": "halving"}, "say how many with --trials"),
])
def test_flags_that_do_not_fit_are_refused_with_the_cure(flags, message):
    with pytest.raises(ValueError, match=message):
        planned([read_axis(text) for text in flags.get("over", ())], SweepFlags(recipe="tiny", **flags))


def test_trials_count_settings_times_seeds():
    axes = [read_axis(f"{LAYERS}=1..9")]
    assert len(planned(axes, SweepFlags(recipe="tiny", over=("x",), seeds=2, trials=9))) == 4


def test_a_trial_has_a_new_name_only_for_what_decides_its_score():
    recipe = find_recipe("tiny")
    trial = Trial((f"{LAYERS}=1",), 0)
    name = trial.name(recipe, inputs=["a"])
    assert Trial((f"{LAYERS}=1",), 0).name(recipe, inputs=["a"]) == name
    changed = [Trial((f"{LAYERS}=2",), 0), Trial((f"{LAYERS}=1",), 1), Trial((f"{LAYERS}=1",), 0, 2)]
    others = [other.name(recipe, inputs=["a"]) for other in changed]
    assert len({name, *others, trial.name(recipe, inputs=["b"])}) == 5


def test_settings_that_do_not_fit_are_found_before_anything_is_trained():
    recipe = find_recipe("tiny")
    fits = Trial((f"{LAYERS}=1",), 0)
    unfit = Trial((f"{LAYERS}=many",), 0)
    assert [trial for trial, _ in refuse_unfit([fits, unfit], recipe)] == [unfit]
    with pytest.raises(ValueError, match="none of 1 trials can be run"):
        refuse_unfit([unfit], recipe)
