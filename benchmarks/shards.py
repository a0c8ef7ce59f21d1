"""Sharding against a plain re-pack of the same source files (tar, fsync, sha256), in one process without Ray.

Two data sets of the synthetic world at 1280x720 are sharded. With masks as run lengths, frames are copied, and every
mask is read, checked and painted into an id map. With label maps, each RGB-coded PNG is decoded, renumbered and written
as an id map of one channel. Decoding it alone takes longer than the whole re-pack, so the baseline of a third row
decodes it too.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from benchmarks.harness import Results
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.datasets.vipseg import VipSeg
from pipeline.datasets.youtube_vis import YouTubeVis
from pipeline.records import Dataset
from pipeline.shards import make_shards

NOTES = """The label maps are saved as VIPSeg's own converter saves them (`create_panoptic_video_labels.py` at
VIPSeg-Dataset/VIPSeg-Dataset@ae1f313): by Pillow, which chooses a filter for each row. In five real maps that were
saved so, every row has the filter Sub, Up or Paeth. Undoing the filters takes most of the 7 ms in which the fastest of
five decoders reads such a map of 720p (docs/log.md). This is ten times as long as the re-pack of its frame, so no
sharding of such maps comes near to a re-pack that does not decode them."""

MEASURES = ("pipeline/datasets/run_lengths.py",
            *(f"pipeline/shards/{name}.py" for name in ("encode", "id_runs", "label_png", "make", "stored_ids",
                                                       "writer")),
            "pipeline/images.py")
SIZES = {"toy": SyntheticConfig(videos_train=2, videos_val=0, frames=4),
         "full": SyntheticConfig(videos_train=4, videos_val=0, frames=24, height=720, width=1280)}


def run(size: SyntheticConfig, results: Results) -> None:
    """Compare on masks, on label maps, and on label maps that the baseline decodes too."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        maps = VipSeg(str(saved_by_pillow(write_world(folder / "maps", size))))
        masks = YouTubeVis(str(write_world(folder / "masks", replace(size, layout="youtube_vis"))))
        for name, dataset, decode in (("run-length masks", masks, False), ("RGB label maps", maps, False),
                                      ("RGB label maps, which the baseline decodes too", maps, True)):
            results.compare(f"sharding, {name}", ours=sharding(dataset, folder), agree=agree,
                            baseline=repacking(dataset, folder, decode_labels=decode))


def saved_by_pillow(root: Path) -> Path:
    """Save the label maps of a world again, with the row filters that Pillow chooses."""
    for path in sorted((root / "panomasksRGB").rglob("*.png")):
        with Image.open(path) as picture:
            picture.copy().save(path)
    return root


def agree(sharded: int, repacked: int) -> None:
    """Both wrote the same number of frames."""
    assert sharded == repacked > 0, f"{sharded} frames were sharded and {repacked} re-packed"


def sharding(dataset: Dataset, folder: Path) -> Callable[[], int]:
    """Run `make_shards` into an empty folder; the number of frames."""
    def run() -> int:
        shutil.rmtree(folder / "shards", ignore_errors=True)
        return make_shards(dataset, folder / "shards", split="train").frames
    return run


def repacking(dataset: Dataset, folder: Path, *, decode_labels: bool) -> Callable[[], int]:
    """Copy the source files of a data set into one tar, unchanged; the number of frames."""
    frames = [frame for id in dataset.video_ids() for frame in dataset.read(id).frames]
    files = [file for frame in frames for file in (frame.image, frame.label) if file is not None]

    def run() -> int:
        with open(folder / "plain.tar", "wb") as target:
            with tarfile.open(fileobj=target, mode="w") as tar:
                for file in files:
                    _add(tar, file, decode=decode_labels and file.suffix == ".png")
            target.flush()
            os.fsync(target.fileno())
        with open(folder / "plain.tar", "rb") as written:
            hashlib.file_digest(written, "sha256")
        return len(frames)
    return run


def _add(tar: tarfile.TarFile, file: Path, *, decode: bool) -> None:
    content = file.read_bytes()
    if decode:
        cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    info = tarfile.TarInfo(f"{file.parent.name}/{file.name}")
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
