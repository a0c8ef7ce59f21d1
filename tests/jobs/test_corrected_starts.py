"""A failed start leaves nothing behind that refuses the corrected one in the same folder; other data are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import check_dataset, make_shards
from jobs.verb import chosen_recipe, guarded
from pipeline.shards import ShardSet
from tests.own_data.worlds import SOURCES, edit, save


def started(verb, name: str, root: Path, folder: Path, *changes: str) -> int:
    """Exit code of a verb in this process."""
    settings = [f"folder={folder}", f"dataset.root={root}", "cluster.in_process=true", *changes]
    return guarded(verb.main, lambda: chosen_recipe(name, settings))


def test_classes_that_are_corrected_after_a_later_split_failed_are_those_of_all_shards(tmp_path, capsys):
    root = SOURCES["vipseg"].write(tmp_path / "data")
    categories = root / "panoVIPSeg_categories.json"
    rows = json.loads(categories.read_text())
    used = json.loads((root / "panoptic_gt_VIPSeg_train.json").read_text())["annotations"]
    in_train = {segment["category_id"] for video in used for frame in video["annotations"]
                for segment in frame["segments_info"]}
    missing = next(row["id"] for row in rows if row["id"] in in_train)
    edit(root / "panoptic_gt_VIPSeg_train.json", lambda content: [      # the fault shows in the second split alone
        frame.update(segments_info=[s for s in frame["segments_info"] if s["category_id"] != missing])
        for video in content["annotations"] for frame in video["annotations"]] and None)
    save(categories, [row for row in rows if row["id"] != missing])
    assert started(make_shards, "tiny", root, tmp_path / "run", "shards.max_bad_fraction=0.9") == 3
    assert "are bad" in capsys.readouterr().err
    save(categories, rows)
    assert started(make_shards, "tiny", root, tmp_path / "run", "shards.max_bad_fraction=1") == 0
    for split in ("train", "val"):
        assert len(ShardSet(tmp_path / "run" / "shards" / split).classes) == len(rows)
    save(categories, rows[:-1])
    assert started(make_shards, "tiny", root, tmp_path / "run", "shards.max_bad_fraction=1") == 2
    assert "another plan, which differs in categories" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [make_shards, check_dataset])
def test_splits_of_other_classes_are_refused_before_anything_is_made(tmp_path, capsys, verb):
    root = SOURCES["youtube_vis"].write(tmp_path / "data")
    edit(root / "valid.json", lambda content: content["categories"][1].update(name="sqare"))
    assert started(verb, "tiny_vis", root, tmp_path / "run") == 3
    said = capsys.readouterr().err
    assert "the splits 'valid' and 'train' have other classes: class 1 is 'sqare' here and 'square' there" in said
    assert "List the same classes" in said
    assert not (tmp_path / "run" / "shards").exists()
    edit(root / "valid.json", lambda content: content["categories"][1].update(name="square"))
    assert started(verb, "tiny_vis", root, tmp_path / "run") == 0
