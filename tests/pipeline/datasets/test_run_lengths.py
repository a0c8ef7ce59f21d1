"""Run lengths are read to the last run, and refused if they do not fill the frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as run_lengths

from pipeline.datasets.run_lengths import packed_mask, runs_of


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_runs_are_those_of_the_mask(height, width, share, seed):
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    counts = run_lengths.encode(np.asfortranarray(mask))["counts"].decode()
    flat = np.concatenate([[0], mask.ravel(order="F")])
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)), [mask.size]])
    assert runs_of(counts).tolist() == np.diff(starts).tolist()


def test_runs_of_large_pictures_survive():
    mask = np.zeros((4000, 3000), np.uint8, order="F")
    mask[17, 2000] = 1
    runs = runs_of(run_lengths.encode(mask)["counts"].decode())
    assert runs.tolist() == [4000 * 2000 + 17, 1, mask.size - 4000 * 2000 - 18]


@pytest.mark.parametrize("form", ["compressed", "uncompressed"])
@pytest.mark.parametrize(("height", "width"), [(5, 6), (4, 7), (3, 6)])
def test_run_lengths_of_another_frame_are_refused_whatever_size_they_claim(form, height, width):
    """COCO's tools would read past the end of the frame, or leave a part of it out."""
    drawn = run_lengths.encode(np.asfortranarray(np.tri(height, width, dtype=np.uint8)))
    counts = drawn["counts"].decode() if form == "compressed" else runs_of(drawn["counts"].decode()).tolist()
    assert packed_mask({"size": [height, width], "counts": counts}, height=height, width=width) == drawn
    with pytest.raises(ValueError, match=f"sum to {height * width} pixels.*a frame has 24"):
        packed_mask({"size": [4, 6], "counts": counts}, height=4, width=6)


@pytest.mark.parametrize("counts", ["", "0o", "~~~"])
def test_text_that_holds_no_run_lengths_is_refused(counts):
    with pytest.raises(ValueError, match="cannot be read; a frame has 24"):
        packed_mask({"size": [4, 6], "counts": counts}, height=4, width=6)
