"""Sharding against a plain re-pack of the same source files (tar, fsync, sha256), in one process without Ray.

    python -m benchmarks.shards

Two data sets of the synthetic world at 1280x720 are sharded. With masks as run lengths, frames are copied, and sharding
does little more than the re-pack. With label maps, each RGB-coded PNG is decoded, renumbered and written as an id map
of one channel. Decompressing it alone takes longer than the whole re-pack, so the baseline of a third row decodes it
too.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks.harness import compare
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.datasets.vipseg import VipSeg
from pipeline.datasets.youtube_vis import YouTubeVis
from pipeline.records import Dataset
from pipeline.shards import make_shards

WORLD = {"videos_train": 4, "videos_val": 0, "frames": 24, "height": 720, "width": 1280}


def main() -> None:
    """Print and store the three ratios."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        maps = VipSeg(str(write_world(folder / "maps", SyntheticConfig(**WORLD))))
        masks = YouTubeVis(str(write_world(folder / "masks", SyntheticConfig(**WORLD, layout="youtube_vis"))))
        compare("shards: frames, run-length masks", ours=sharding(masks, folder), baseline=repacking(masks, folder))
        compare("shards: frames, RGB label maps", ours=sharding(maps, folder), baseline=repacking(maps, folder))
        compare("shards: frames, RGB label maps; baseline decodes them", ours=sharding(maps, folder),
                baseline=repacking(maps, folder, decode_labels=True))


def sharding(dataset: Dataset, folder: Path) -> Callable[[], None]:
    """Run `make_shards` into an empty folder."""
    def run() -> None:
        shutil.rmtree(folder / "shards", ignore_errors=True)
        make_shards(dataset, folder / "shards", split="train")
    return run


def repacking(dataset: Dataset, folder: Path, *, decode_labels: bool = False) -> Callable[[], None]:
    """Copy the source files of a data set into one tar, unchanged."""
    files = [file for id in dataset.video_ids() for frame in dataset.read(id).frames
             for file in (frame.image, frame.label) if file is not None]

    def run() -> None:
        with open(folder / "plain.tar", "wb") as target:
            with tarfile.open(fileobj=target, mode="w") as tar:
                for file in files:
                    _add(tar, file, decode=decode_labels and file.suffix == ".png")
            target.flush()
            os.fsync(target.fileno())
        with open(folder / "plain.tar", "rb") as written:
            hashlib.file_digest(written, "sha256")
    return run


def _add(tar: tarfile.TarFile, file: Path, *, decode: bool) -> None:
    content = file.read_bytes()
    if decode:
        cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    info = tarfile.TarInfo(f"{file.parent.name}/{file.name}")
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    main()
