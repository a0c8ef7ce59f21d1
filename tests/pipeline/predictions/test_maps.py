"""In an object store, the maps of a video are one object, which is read as the folder of a disk is."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.object_store import BUCKET
from model.contracts import VideoResults
from pipeline import store
from pipeline.errors import BadInput
from pipeline.predictions import PredictionWriter, kept_results
from pipeline.predictions.maps import maps_to_read
from tests.object_store import store_for_tests
from tests.pipeline.metrics.some_videos import CLASSES, semantic
from tests.pipeline.predictions.test_kept import panoptic

RESULTS = VideoResults(panoptic=panoptic(), semantic=semantic(panoptic()))


def refuse_unequal(folder: Path) -> None:
    """The results that are kept in a folder are `RESULTS`."""
    back = kept_results(folder, "v", CLASSES)
    for kind in ("panoptic", "semantic"):
        maps = getattr(back, kind).frames
        for _ in range(2):      # they can be iterated again
            for ids, expected in zip(maps, getattr(RESULTS, kind).frames, strict=True):
                np.testing.assert_array_equal(ids, expected)


def test_a_store_has_one_object_for_the_maps_of_a_video(tmp_path, monkeypatch):
    with store_for_tests(tmp_path / "server"):
        for machine in ("writer", "reader"):
            (tmp_path / machine).mkdir()
            monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / machine))
            folder = store.working_path(f"s3://{BUCKET}/predictions")
            store.look(folder)
            if machine == "writer":
                formats = ("vipseg", "vspw", "kitti_step")
                PredictionWriter(folder=folder, classes=CLASSES, made_by={}, formats=formats).write(RESULTS)
            names = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
            assert names == {"pan_pred/v.tar", "semantic/v.tar", "panoptic_maps/v.tar", "videos/v.json"}
            refuse_unequal(folder)


@pytest.fixture
def packed(tmp_path):
    """A folder of predictions that was copied from a store: its maps are in tars."""
    PredictionWriter(folder=tmp_path, classes=CLASSES, made_by={}).write(RESULTS)
    for maps in ("pan_pred", "semantic"):
        with tarfile.open(tmp_path / maps / "v.tar", "w") as tar:
            for file in sorted((tmp_path / maps / "v").iterdir()):
                tar.add(file, file.name)
        shutil.rmtree(tmp_path / maps / "v")
    return tmp_path


def test_a_copy_of_what_a_store_holds_is_read_too(packed):
    refuse_unequal(packed)


def test_a_tar_that_is_damaged_is_named(packed):
    tar = packed / "pan_pred" / "v.tar"
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(BadInput, match="cannot be read") as error:
        list(kept_results(packed, "v", CLASSES).panoptic.frames)
    assert error.value.file == tar


def test_a_map_that_is_missing_in_a_tar_is_named_by_the_tar(packed):
    tar = packed / "pan_pred" / "v.tar"
    tarfile.open(tar, "w").close()
    with pytest.raises(BadInput, match="does not exist") as error:
        list(kept_results(packed, "v", CLASSES).panoptic.frames)
    assert error.value.file == tar / "0.png"


def test_members_never_leave_the_folder(packed):
    tar = packed / "pan_pred" / "v.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(__file__, "../outside.png")
    with pytest.raises(BadInput, match="cannot be read"), maps_to_read(packed / "pan_pred" / "v"):
        pass
