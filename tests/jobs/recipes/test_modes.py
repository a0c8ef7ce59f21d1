"""A recipe that can be built can be evaluated and predicts in every mode it claims; the rest is refused at once."""

from __future__ import annotations

import shlex

import pytest

from jobs import predict
from jobs.config import override
from jobs.kept_predictions import scores_folder
from jobs.recipes import RECIPES, find_recipe
from jobs.verb import command_line, next_command, resolved
from model.families import refuse_unfit_results

AFTER = {"make_shards": "train_stage_one", "cache_queries": "train_stage_two", "train_stage_two": "evaluate"}


@pytest.mark.parametrize("name", RECIPES)
def test_every_mode_a_recipe_claims_can_be_made(name):
    recipe = find_recipe(name)
    one = recipe.stage_one
    assert recipe.evaluation.mode in ("untrained", *recipe.modes)
    assert recipe.predict_mode in recipe.modes
    for mode in recipe.modes:
        refuse_unfit_results(recipe.inference, one.segmenter, offline=mode == "offline",
                             clip_frames=one.segmenter_frames)
    assert ("offline" in recipe.modes) == (recipe.head is not None)
    assert recipe.stage_two is None or one.joint is None


@pytest.mark.parametrize(("name", "changes", "complaint"), [
    ("tiny", ['inference.results=["tracks"]'], "video_kmax makes panoptic near-online, not tracks"),
    ("tiny", ["evaluation.mode=offline", 'inference.association={"kind": "memory_buffer"}'],
     "evaluation.mode=offline cannot be done: video_kmax makes panoptic offline with association hungarian"),
    ("tiny", ["predict.mode=offline", 'inference.association={"kind": "stitching"}'], "predict.mode=offline cannot be"),
    ("tiny", ['inference.panoptic={"kind": "tube"}'], "by kind 'mask_wise', not 'tube'"),
    ("tiny", ["inference.panoptic.sure_first=true"], "sure_first=true needs the classes of each clip"),
    ("tiny", ["evaluation.mode=offline", "stage_two=null"], "evaluation.mode=offline needs a cross-clip head"),
    ("tiny", ['inference.head={"kind": "vita", "window": 3}'], "inference.head is of kind 'vita'"),
    ("tiny", ['predict.formats=["vspw"]'], r"predict.formats=\['vspw'\]: the format 'vspw' is written from semantic"),
    ("tiny", ['evaluation.formats=["vspw"]'], r"evaluation.formats=\['vspw'\]: the format 'vspw' is written from"),
    ("synthetic_vss", ["evaluation.mode=offline"], "needs a cross-clip head, and synthetic_vss has none"),
    ("tiny_vis", ["evaluation.mode=offline", 'inference.results=["semantic"]'], "makes tracks offline, not semantic"),
    ("tiny_vis", ["evaluation.mode=offline", 'inference.results=["tracks", "semantic"]'], "not semantic"),
    ("tiny_vis", ['inference.results=["panoptic"]'], "makes panoptic videos by kind 'tube'"),
    ("tiny_vita", ["inference.clip_frames=2"], "takes clips of one frame"),
    ("coco_kmax_r50", ["predict.mode=offline"], "predict.mode=offline needs a cross-clip head"),
    ("vipseg_tube_link_r50", ["evaluation.mode=offline"], "needs a cross-clip head"),
])
def test_what_cannot_be_made_is_refused_before_anything_is_read(name, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        override(find_recipe(name), changes)


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_that_is_named_next_can_be_obeyed(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    recipe = resolved(find_recipe(name))
    verb = "make_shards"
    seen = []
    while verb != "evaluate":
        words = shlex.split(next_command(recipe, verb).removeprefix("next: "))
        assert words[:2] == ["python", "-m"]
        verb = words[2].removeprefix("jobs.")
        seen.append(verb)
        following = resolved(override(find_recipe(words[4]), words[6::2]))
        assert verb not in ("cache_queries", "train_stage_two") or following.stage_two is not None
    assert following.evaluation.mode == recipe.modes[-1]
    with_stage_two = ["train_stage_one", "cache_queries", "train_stage_two", "evaluate"]
    assert seen == (with_stage_two if recipe.stage_two is not None else ["train_stage_one", "evaluate"])


OVERRIDES = ["stage_one.fit.steps=7", "stage_two.head.layers=1", 'inference.association={"kind": "clip_wise"}',
             "stage_one.segmenter.within_clip=null", "cluster.in_process=true", "folder=my runs/a", "strict=true",
             "cache.splits=[\"train\",\"val\"]", "tracking.project=42", "predict.formats=[\"vipseg\"]",
             "stage_one.input.augment.size=[96,64]", "inference.enlarge=true"]


@pytest.mark.parametrize("verb", ["make_shards", "train_stage_one", "cache_queries", "train_stage_two"])
def test_it_carries_every_override_of_the_command_before_it(verb, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    recipe = resolved(override(find_recipe("tiny"), OVERRIDES))
    words = shlex.split(next_command(recipe, verb).removeprefix("next: "))
    assert set(words[5::2]) == {"--set"}
    assert resolved(override(find_recipe(words[4]), words[6::2])) == recipe
    plain = shlex.split(command_line(resolved(find_recipe("tiny")), "evaluate").removeprefix("next: "))
    assert plain == ["python", "-m", "jobs.evaluate", "--recipe", "tiny"]


@pytest.mark.parametrize(("name", "changes", "message"), [
    ("tiny", ["inference.association.kind=memory_buffer"], "inference.association=memory_buffer would associate once"),
    ("tiny", ["evaluation.predictions=somewhere"], "leave evaluation.predictions empty"),
    ("synthetic_vps", [], "leave panoptic out of inference.results"),
])
def test_the_oracle_is_refused_where_labels_cannot_order_the_queries(name, changes, message):
    with pytest.raises(ValueError, match=message):
        override(find_recipe(name), [*changes, "evaluation.association=oracle"])


def test_the_oracle_is_refused_by_predict(tmp_path):
    recipe = override(find_recipe("tiny"), [f"folder={tmp_path}", "predict.input=x", "evaluation.association=oracle"])
    with pytest.raises(ValueError, match="association=oracle uses the labels, and a video to predict has none"):
        predict.main(recipe)
    with pytest.raises(ValueError, match="there is no kind 'oracle'; choose one of hungarian"):
        override(find_recipe("tiny"), ["inference.association.kind=oracle"])


def test_scores_of_the_oracle_have_a_folder_of_their_own():
    recipe = find_recipe("tiny")
    oracle = override(recipe, ["evaluation.association=oracle"])
    assert scores_folder(oracle) == scores_folder(recipe).with_name(f"{scores_folder(recipe).name}_oracle")
