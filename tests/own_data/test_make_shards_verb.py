"""make_shards on every input of own_data: exit code, counts and words, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import make_shards
from jobs.config import override
from jobs.recipes import find_recipe
from jobs.verb import guarded
from pipeline.shards import ShardSet

VIDEOS = {"category_color_floats": (4, 1), "raw_unpadded_names": (2, 1), "sparse_labels": (2, 1),
          "vis_backslash": (3, 1), "vis_bom": (3, 1), "vis_cocovid": (3, 1), "vis_flat_polygon": (3, 1),
          "vis_string_ids": (3, 1)}


def run(own_data: Path, name: str, folder: Path) -> int:
    """The verb with the recipe and the overrides that the folder's README names."""
    changes = [f"dataset.root={own_data / name / 'data'}", "world=null", f"folder={folder}", "cluster.in_process=true"]
    if name.startswith("vis"):
        changes += ["dataset.name=youtube_vis", "evaluation.split=val"]
    return guarded(make_shards.main, lambda: override(find_recipe("tiny_vis" if name.startswith("vis") else "tiny"),
                                                      changes))


@pytest.mark.parametrize("name", VIDEOS)
def test_what_can_be_read_becomes_shards(own_data, tmp_path, capsys, name):
    assert run(own_data, name, tmp_path / "run") == 0
    said = capsys.readouterr().out
    summary = json.loads(said.splitlines()[-1])
    assert (summary["train"]["videos"], summary["val"]["videos"]) == VIDEOS[name]
    assert summary["train"]["skipped"] == summary["val"]["skipped"] == {}
    assert "debris" in said                             # the class table; the names are those of all these folders
    assert ("12 frames without a label" in said) == (name == "sparse_labels")
    shards = ShardSet(tmp_path / "run" / "shards" / "train")
    assert sum(row["objects"] for row in shards.manifest["classes"]) == sum(len(v.segments) for v in shards.videos)


def test_what_cannot_be_read_is_one_named_error_of_the_data(own_data, tmp_path, capsys):
    """The label maps of the folder have overflowed."""
    assert run(own_data, "raw_category_700", tmp_path / "run") == 3
    said = capsys.readouterr().err
    assert all(word in said for word in ("panoVIPSeg_categories.json", "'ground' has the id 700",
                                         "Number the classes from 0"))
    assert "Traceback" not in said


def test_a_mask_that_cannot_be_read_costs_a_frame_of_each_split_and_is_named(own_data, tmp_path, capsys):
    assert run(own_data, "vis_nan_polygon", tmp_path / "run") == 0
    said = capsys.readouterr().out
    for split in ("train", "val"):
        assert f"{split}.json: track 1, frame 0: a corner of the polygon is nan" in said
    assert said.count("errors.jsonl names every faulty frame (1)") == 2
