"""Videos and windows without an object train and score in every family, and what passes make_shards passes each verb.

The panoptic run also has nested folders, strange names, colours as fractions, equal colours and partial labels.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import cache_queries, evaluate, make_shards, train_stage_one, train_stage_two
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from jobs.verb import resolved
from pipeline.images import decode_image, decode_png, encode_jpeg, encode_png, resize_ids, resize_image
from pipeline.shards import ShardSet
from tests.own_data.worlds import SOURCES, edit
from tests.runs import EVERYTHING, here, inferred, scored
from tests.test_tube_link_run import short, with_classes
from tests.test_vita_run import jointly

pytestmark = pytest.mark.slow


def on_own_data(name: str, folder: Path, root: Path) -> Recipe:
    """A tiny recipe on a data set on disk, with batches of one clip, so that some hold no object at all."""
    recipe = here(find_recipe(name))
    recipe = replace(recipe, folder=str(folder), world=None, dataset=replace(recipe.dataset, root=str(root)))
    recipe = replace(recipe, cluster=replace(recipe.cluster, workers=1))
    one = recipe.stage_one
    recipe = replace(recipe, stage_one=replace(one, input=replace(one.input, batch_size=1),
                                               fit=replace(one.fit, steps=5, log_every=1)))
    if recipe.stage_two is not None:
        two = recipe.stage_two
        recipe = replace(recipe, stage_two=replace(two, input=replace(two.input, batch_size=1),
                                                   fit=replace(two.fit, steps=5, log_every=1)))
    return resolved(recipe)


def all_verbs(recipe: Recipe) -> list[dict[str, Any]]:
    """Every verb in this process; returns the scores of each mode. A loss that is no number ends a training."""
    make_shards.main(recipe)
    train_stage_one.main(recipe)
    if recipe.stage_two is not None:
        cache_queries.main(recipe)
        train_stage_two.main(recipe)
    return [evaluate.main(scored(recipe, mode=mode)) for mode in recipe.modes]


def only_one_video_has_objects(root: Path) -> None:
    """One training video keeps its tracks, in its last frame; the others and the first in `valid` have none."""
    edit(root / "train.json", lambda content: content.update(annotations=[
        {**track, "segmentations": [None] * 3 + track["segmentations"][3:]} for track in content["annotations"]
        if track["video_id"] == 2 and track["segmentations"][3]]))
    edit(root / "valid.json", lambda content: content.update(annotations=[
        track for track in content["annotations"] if track["video_id"] != 1]))


@pytest.mark.long
@pytest.mark.parametrize("family", ["tiny_vis", "tiny_vita", "joint"])
def test_videos_and_windows_without_objects_train_and_score(tmp_path, family):
    root = SOURCES["youtube_vis"].write(tmp_path / "data", videos_train=3, videos_val=2, frames=4)
    only_one_video_has_objects(root)
    recipe = on_own_data("tiny_vis" if family == "tiny_vis" else "tiny_vita", tmp_path / "run", root)
    if family == "joint":
        recipe = jointly(recipe, clip_frames=2)
    scores = all_verbs(recipe)
    shards = ShardSet(recipe.shards_of("train"))
    assert [bool(video.segments) for video in shards.videos] == [False, True, False]
    assert all(video.has_labels for video in shards.videos)
    for mode in scores:
        assert (mode["videos"], mode["skipped"]) == (2, [])
        assert mode["ap"] is not None


def on_synthetic(name: str, folder: Path, root: Path) -> Recipe:
    """A synthetic recipe of Tube-Link on a data set on disk, for two steps on batches of one clip."""
    recipe = short(here(find_recipe(name)), folder, world=None)
    recipe = replace(recipe, dataset=replace(recipe.dataset, root=str(root)),
                     cluster=replace(recipe.cluster, workers=1))
    one = recipe.stage_one
    return replace(recipe, stage_one=replace(one, input=replace(one.input, batch_size=1)))


def test_panoptic_tubes_train_and_score_with_videos_of_nothing_but_void(tmp_path):
    """With the losses that link two clips of a video."""
    root = SOURCES["vipseg"].write(tmp_path / "data", videos_train=3, videos_val=2, frames=7)
    for split, video in (("train", "train_00000"), ("train", "train_00001"), ("val", "val_00000")):
        empty(root, split, video)
    for mode in all_verbs(on_synthetic("synthetic_vps", tmp_path / "run", root)):
        assert (mode["videos"], mode["skipped"]) == (2, [])
        assert mode["vpq"] is not None


@pytest.mark.long
def test_semantic_video_trains_and_scores_with_videos_of_nothing_but_void(tmp_path):
    root = SOURCES["vspw categories"].write(tmp_path / "data", videos_train=3, videos_val=2, frames=9)
    for video in ("train_00000", "train_00001", "val_00000"):
        for path in (root / "data" / video / "mask").iterdir():
            path.write_bytes(encode_png(np.zeros((48, 64), np.uint8)))
    for mode in all_verbs(on_synthetic("synthetic_vss", tmp_path / "run", root)):
        assert (mode["videos"], mode["skipped"]) == (2, [])
        assert mode["miou"] is not None


@pytest.mark.long
def test_a_training_set_of_negatives_alone_goes_through_every_verb_of_ovis(tmp_path):
    """The lists of annotations are empty; there is nothing to score, and no number is invented."""
    root = SOURCES["youtube_vis"].write(tmp_path / "data", videos_train=3, videos_val=2, frames=4)
    for split in ("train", "valid"):
        edit(root / f"{split}.json", lambda content: content.update(annotations=[], categories=[
            {"id": 1, "name": "Person"}, {"id": 25, "name": "Vehical"}]))
    recipe = on_own_data("tiny_vis", tmp_path / "run", root)
    recipe = with_classes(replace(recipe, dataset=replace(recipe.dataset, name="ovis")), 25)
    for mode in all_verbs(recipe):
        assert (mode["ap"], mode["videos"], mode["skipped"]) == (None, 2, [])
    shards = ShardSet(recipe.shards_of("train"))
    assert shards.classes.classes[24].name == "Vehicle"
    assert all(video.has_labels and not video.segments for video in shards.videos)


@pytest.mark.long
@pytest.mark.parametrize("family", ["tiny_vita", "joint"])
def test_a_training_set_of_negatives_alone_goes_through_every_verb_of_vita(tmp_path, family):
    root = SOURCES["youtube_vis"].write(tmp_path / "data", videos_train=3, videos_val=2, frames=4)
    for split in ("train", "valid"):
        edit(root / f"{split}.json", lambda content: content.update(annotations=[]))
    recipe = on_own_data("tiny_vita", tmp_path / "run", root)
    for mode in all_verbs(jointly(recipe, clip_frames=2) if family == "joint" else recipe):
        assert (mode["ap"], mode["videos"], mode["skipped"]) == (None, 2, [])


def nest(root: Path) -> None:
    """Put every video into a folder of its own: train_00000 becomes site/cam/train_00000."""
    for folder in ("images", "panomasksRGB"):
        (root / folder / "site").mkdir()
        (root / folder / "site" / "cam").mkdir()
        for video in [path for path in (root / folder).iterdir() if path.name != "site"]:
            video.rename(root / folder / "site" / "cam" / video.name)
    for split in ("train", "val"):
        path = root / f"{split}.txt"
        path.write_text("".join(f"site/cam/{line}\n" for line in path.read_text().split()))
        edit(root / f"panoptic_gt_VIPSeg_{split}.json", lambda content: [
            entry.update(video_id=f"site/cam/{entry['video_id']}")
            for entry in [*content["videos"], *content["annotations"]]] and None)


def give_strange_names(root: Path) -> str:
    """Rename the second video of `val`, its frames and some classes; returns the video's new name."""
    name = "Ümläut #1 %s 'é' {x} 猫 " + "n" * 100
    for folder in ("images", "panomasksRGB"):
        video = root / folder / "site" / "cam" / "val_00001"
        for path in list(video.iterdir()):
            path.rename(path.with_name(f"{'%d ' * 30}{path.name}"))
        video.rename(video.with_name(name))
    path = root / "val.txt"
    path.write_text(path.read_text().replace("val_00001", name))

    def change(content: dict) -> None:
        for field in ("videos", "annotations"):
            entry = content[field][1]
            entry["video_id"] = f"site/cam/{name}"
            for row in entry["images" if field == "videos" else "annotations"]:
                row["file_name"] = f"{'%d ' * 30}{row['file_name']}"

    edit(root / "panoptic_gt_VIPSeg_val.json", change)
    edit(root / "panoVIPSeg_categories.json", lambda rows: [row.update(name="50% {the} same") for row in rows] and None)
    return f"site+cam+{name}"


def empty(root: Path, split: str, video: str) -> None:
    """Make all frames of a video void."""
    def change(content: dict) -> None:
        (entry,) = [entry for entry in content["annotations"] if entry["video_id"] == video]
        for row in entry["annotations"]:
            row["segments_info"] = []
            (root / "panomasksRGB" / video / row["file_name"]).write_bytes(encode_png(np.zeros((48, 64, 3), np.uint8)))

    edit(root / f"panoptic_gt_VIPSeg_{split}.json", change)


@pytest.mark.long
def test_what_passes_make_shards_passes_every_verb(tmp_path):
    root = SOURCES["vipseg"].write(tmp_path / "data", videos_train=3, videos_val=2, frames=4)
    nest(root)
    empty(root, "train", "site/cam/train_00000")
    empty(root, "val", "site/cam/val_00000")
    strange = give_strange_names(root)
    edit(root / "panoVIPSeg_categories.json", lambda rows: [
        row.update(color=[0.25, 0.5, 0.0] if row["isthing"] else "#102030") for row in rows] and None)
    edit(root / "panoptic_gt_VIPSeg_train.json", lambda content: [      # every second frame has no label
        entry.update(annotations=entry["annotations"][::2]) for entry in content["annotations"]] and None)
    for path in root.glob("panomasksRGB/site/cam/train_*"):
        for label in sorted(path.iterdir())[1::2]:
            label.unlink()
    recipe = inferred(on_own_data("tiny", tmp_path / "run", root), panoptic=EVERYTHING)
    scores = all_verbs(recipe)
    assert ShardSet(recipe.shards_of("train")).manifest["remarks"] == {"frames without a label": 6}
    for mode in scores:
        assert (mode["videos"], mode["skipped"]) == (2, [])
        assert mode["miou"] is not None
        predictions = Path(mode["predictions"])
        assert {entry["video_id"] for entry in json.loads((predictions / "pred.json").read_text())["annotations"]} == {
            "site+cam+val_00000", strange}


@pytest.mark.long
def test_strips_pass_every_verb(tmp_path):
    """Frames of 1200 x 16 pixels, as line cameras and panoramas have them."""
    root = SOURCES["vipseg"].write(tmp_path / "data", frames=4)
    for path in root.glob("images/*/*.jpg"):
        path.write_bytes(encode_jpeg(resize_image(decode_image(path.read_bytes()), 16, 1200)))
    for path in root.glob("panomasks/*/*.png"):
        path.write_bytes(encode_png(resize_ids(decode_png(path.read_bytes()), 16, 1200)))
    recipe = on_own_data("tiny", tmp_path / "run", root)
    recipe = replace(recipe, dataset=replace(recipe.dataset, layout="raw"))
    for mode in all_verbs(inferred(recipe, panoptic=EVERYTHING)):
        assert (mode["videos"], mode["frames"], mode["skipped"]) == (1, 4, [])


@pytest.mark.long
def test_a_split_of_nothing_but_void_has_no_score(tmp_path):
    """All verbs end well, and no number is invented."""
    root = SOURCES["vipseg"].write(tmp_path / "data", frames=4)
    for split, video in (("train", "train_00000"), ("train", "train_00001"), ("val", "val_00000")):
        empty(root, split, video)
    for mode in all_verbs(on_own_data("tiny", tmp_path / "run", root)):
        assert (mode["vpq"], mode["stq"], mode["miou"], mode["videos"]) == (None, None, None, 1)


def test_a_valid_split_without_annotations_is_predicted_and_has_no_score(tmp_path):
    """As the public valid splits come."""
    root = SOURCES["youtube_vis"].write(tmp_path / "data", frames=4)
    edit(root / "valid.json", lambda content: content.pop("annotations") and None)
    (near_online, _) = all_verbs(on_own_data("tiny_vis", tmp_path / "run", root))
    assert (near_online["ap"], near_online["videos"], near_online["frames"]) == (None, 1, 4)
    assert (Path(near_online["predictions"]) / "results.zip").is_file()
