"""The program of `torch.export` gives the numbers of the segmenter, for frames that it has not seen."""

from __future__ import annotations

import pytest
import torch

from jobs.handover.exported import PlainSegmenter, export_segmenter, write_program
from jobs.models import load_system
from tests.untrained_run import untrained_run


@pytest.mark.long
def test_the_program_gives_the_numbers_of_the_segmenter(tmp_path):
    run = untrained_run(tmp_path / "run").run_folder
    system = load_system(run, mode="near_online")
    write_program(tmp_path / "segmenter.pt2", export_segmenter(system, (64, 96)))
    program = torch.export.load(tmp_path / "segmenter.pt2").module()
    random = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (1, system.clip_length, 3, 64, 96), generator=random, dtype=torch.uint8)
    real_pixels = torch.ones(1, system.clip_length, 64, 96, dtype=torch.bool)
    real_pixels[..., 80:] = False
    expected = PlainSegmenter(system.segmenter)(frames, real_pixels)
    given = program(frames, real_pixels)
    assert given.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(given[name], value, rtol=1e-5, atol=1e-5, msg=name)
    with pytest.raises(Exception, match=r"(?i)shape|size|guard"):
        program(frames[..., :64], real_pixels[..., :64])
