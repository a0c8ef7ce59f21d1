"""The files that a video passes from its folder to VPQ are those that the architecture page lists."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from PIL import Image

from model.inference import InferenceConfig
from model.labels import ClassInfo, ClassTable
from pipeline.metrics.vpq import VPQ
from pipeline.system import System
from tests.runs import EVERYTHING
from tests.tiny_models import tiny_video_kmax

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("jobs", "pipeline", "model")
SHARED = {"model/contracts.py", "model/labels.py", "model/assignment.py", "pipeline/file_names.py",
          "pipeline/foreign_files.py", "pipeline/store.py", "pipeline/printable.py", "pipeline/metrics/numbers.py"}
NETWORK = ("model/layers/", "model/precision.py")       # beside what a segmenter calls
CLASSES = ClassTable("six", tuple(ClassInfo(number, str(number), number < 4, (number, 0, 0)) for number in range(6)))


def listed() -> set[str]:
    """The files in the numbered list of the page."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = page.partition("## A video from its folder to VPQ")[2].partition("\n## ")[0]
    return set(re.findall(r"^\d+\..*?`([a-z_/0-9]+\.py)`", section, re.M))


def passed(walk: Callable[[], None]) -> set[str]:
    """The project's files of which a function was called, without the network."""
    files: set[str] = set()

    def inside_the_network(frame: FrameType | None) -> bool:
        while frame is not None:
            if "/model/segmenters/" in frame.f_code.co_filename:
                return True
            frame = frame.f_back
        return False

    def note(frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT) and not inside_the_network(frame):
            files.add(str(path.relative_to(ROOT)))

    before = sys.getprofile()
    sys.setprofile(note)
    threading.setprofile(note)      # the thread that reads clips ahead
    try:
        walk()
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    return {file for file in files
            if file.startswith(tuple(f"{room}/" for room in ROOMS)) and not file.startswith(NETWORK)}


def test_a_video_passes_the_files_that_the_page_lists_and_no_others(tmp_path):
    for frame in range(5):
        noise = np.random.default_rng(frame).integers(0, 256, (32, 64, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{frame:03d}.jpg")
    torch.manual_seed(0)
    segmenter = tiny_video_kmax().build().eval()
    system = System(segmenter=segmenter, head=None, classes=CLASSES, clip_frames=2, size=(32, 64), made_by={},
                    inference=InferenceConfig(panoptic=EVERYTHING))
    scores = []

    def walk() -> None:
        result = system.predict(tmp_path).panoptic
        vpq = VPQ(CLASSES)
        vpq.update(result, result)
        scores.append(vpq.result().mean().all)

    files = passed(walk)
    assert len(scores) == 1
    assert files - SHARED == listed()
    assert len(listed()) <= 17      # 16 before pictures of any format were read
